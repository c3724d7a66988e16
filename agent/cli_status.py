"""``edgeferry-agent status``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from agent.cli_output import as_json, output_option, state_option, table
from agent.config import load_config
from agent.layout import DATABASE
from agent.offline import kept_contact
from agent.speak import kept_report
from agent.state import State
from agent.wire.fields import parse_time, write_time
from agent.wire.report import EntryReport, Report, decode_report

_HEADS: Final = ("KIND", "NAME", "VERSION", "WANTED", "HEALTH", "SINCE", "URL")


@click.command(short_help="Print what runs here.")
@state_option
@output_option
def status(state: Path, output: str) -> None:
    """Print what runs here, from the disk alone: it works offline, and while the agent runs or does not.

    \b
    Examples:
      edgeferry-agent status
      edgeferry-agent status --state /srv/edgeferry --output json
    """
    found = read_status(state)
    click.echo(as_json(found) if output == "json" else status_text(found))


def read_status(root: Path) -> dict[str, Any]:
    """Return how the site stands, as the agent kept it last.

    Raises:
        BadConfig: this agent has not joined.
        StateUnreadable: the database is damaged.
    """
    config = load_config(root)
    whole: dict[str, Any] = {
        "cluster": config.cluster,
        "fleet": config.fleet,
        "platform": config.platform,
        "entries": [],
        "release": None,
        "fault": "",
        "asOf": "",
        "contact": {"at": "", "why": ""},
    }
    if not (root / DATABASE).exists():
        return whole
    state = State.read(root)
    try:
        data = kept_report(state)
        at, why = kept_contact(state)
        published = state.setting("clockPublished")
        pending = int(str(state.rows("SELECT COUNT(*) FROM events")[0][0]))
    finally:
        state.close()
    whole["contact"] = {"at": at, "why": why}
    whole["eventsPending"] = pending
    if data:
        whole |= _told(decode_report(data, "standing"), published)
    return whole


def _told(report: Report, published: str) -> dict[str, Any]:
    release = {
        "sequence": report.sequence,
        "content": report.content,
        "publishedAt": published,
        "ignoredOlder": report.ignored,
        "trust": report.trust,
    }
    return {
        "entries": [_entry(one) for one in report.entries],
        "release": release if report.content else None,
        "fault": report.fault,
        "asOf": write_time(report.sent_at),
    }


def _entry(one: EntryReport) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "version": one.version,
        "digest": one.digest,
        "wanted": one.wanted,
        "health": one.health,
        "healthySince": "" if one.healthy_since is None else write_time(one.healthy_since),
        "code": one.code,
        "message": one.message,
        "url": one.url,
        "stagedBytes": one.staged_bytes,
        "sizeBytes": one.size_bytes,
    }


def status_text(found: dict[str, Any]) -> str:
    """Return a status for people."""
    now = datetime.now(UTC)
    release = found["release"]
    age = _age(release["publishedAt"], now) if release else ""
    lines = [
        f"{found['cluster']} ({found['platform']})",
        f"release {release['sequence']}, published {age} ago" if release else "no release yet",
    ]
    contact = found["contact"]
    if contact["why"]:
        heard = f"last heard {_age(contact['at'], now)} ago" if contact["at"] else "never heard"
        lines.append(f"cut off, {heard}: {contact['why']}")
    if found["fault"]:
        lines.append(found["fault"])
    rows = [
        (
            one["kind"],
            one["name"],
            one["version"] or "-",
            _wanted(one),
            one["health"],
            _age(one["healthySince"], now) or "-",
            one["url"] or "-",
        )
        for one in found["entries"]
    ]
    if rows:
        lines += ["", table(_HEADS, rows)]
    for one in found["entries"]:
        if 0 < one["stagedBytes"] < one["sizeBytes"]:
            here, size = one["stagedBytes"] / 1e6, one["sizeBytes"] / 1e6
            lines.append(f"{one['kind']}/{one['name']}: {here:.1f} MB of {size:.1f} MB of the wanted version are here")
        if one["code"] or one["message"]:
            lines.append(f"{one['kind']}/{one['name']}: {one['code']} {one['message']}".rstrip())
    return "\n".join(lines)


def _wanted(one: dict[str, Any]) -> str:
    if not one["wanted"]:
        return "gone"
    return "this" if one["wanted"] == one["digest"] else one["wanted"].removeprefix("sha256:")[:12]


def _age(text: str, now: datetime) -> str:
    if not text:
        return ""
    seconds = max(0, int((now - parse_time(text, "status")).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
