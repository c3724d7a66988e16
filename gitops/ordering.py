"""Orders, given to a running hub, or written straight into the fleet repository where there is no hub."""

from __future__ import annotations

import getpass
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from agent.wire.errors import Stop
from agent.wire.fields import write_time
from gitops.commands import Command, Verb, command_path, encode_command
from gitops.hub_client import HubClient
from gitops.keys import Keyring
from gitops.ledger import read_ledger
from gitops.news import told
from gitops.opening import FleetHome, open_repository
from gitops.orders import ordered
from gitops.provenance import verify_head
from gitops.publish import Change, publish
from gitops.rollout_view import Rolling, shown


class NoRollout(Stop):
    """No placement of this name has a rollout, or not one to which the order applies."""

    code = "EF3203"


class NoPublisherKeys(Stop):
    """An order without a hub is a commit, and needs the publisher's keys."""

    code = "EF3204"


class Desk(Protocol):
    """Where rollouts are seen, and orders are given."""

    def look(self) -> dict[str, Any]:
        """Return what ``GET /v1/rollouts`` answers."""

    def order(self, verb: Verb, about: str, why: str, argument: str = "") -> str:
        """Give an order; return the fleet commit that records it."""


@dataclass(frozen=True, slots=True)
class HubDesk:
    """A running hub."""

    client: HubClient

    def look(self) -> dict[str, Any]:
        """See ``Desk``."""
        found: dict[str, Any] = self.client.get("/v1/rollouts")
        return found

    def order(self, verb: Verb, about: str, why: str, argument: str = "") -> str:
        """See ``Desk``."""
        asked = {"verb": verb, "object": about, "by": user(), "why": why, "argument": argument}
        return str(self.client.post("/v1/commands", asked)["head"])


@dataclass(frozen=True, slots=True)
class FleetDesk:
    """A fleet repository without a hub: the next ``edgeferry publish`` obeys.

    Attributes:
        url: of the fleet repository.
        keys: directory of the publisher's keys; None for a look only.
    """

    url: str
    keys: Path | None = None

    def look(self) -> dict[str, Any]:
        """See ``Desk``; waves by name are known to the hub only."""
        with TemporaryDirectory(prefix="edgeferry-rollout-") as work:
            repository = open_repository(FleetHome(self.url), Path(work, "fleet.git"), create=False)
            ledger = read_ledger(repository.head, (), repository.walk("decisions"), repository.walk("commands"))
        now = datetime.now(UTC).replace(microsecond=0)
        orders = ordered(ledger.commands, now)
        return {
            "at": write_time(now),
            "head": ledger.head or "",
            "frozen": orders.frozen,
            "pending": "",
            "rollouts": [
                shown(Rolling(ledger.records[name], one.state, None, orders.of(name, one.state.number)))
                for name, one in sorted(ledger.rollouts.items())
            ],
        }

    def order(self, verb: Verb, about: str, why: str, argument: str = "") -> str:
        """See ``Desk``."""
        if self.keys is None:
            raise NoPublisherKeys("no keys to sign the order's commit with", do="name their directory with --keys")
        now = datetime.now(UTC).replace(microsecond=0)
        command = Command(secrets.token_hex(8), verb, about, user(), now, why, argument)
        with TemporaryDirectory(prefix="edgeferry-rollout-") as work:
            keyring = Keyring.open(self.keys)
            repository = open_repository(FleetHome(self.url), Path(work, "fleet.git"), create=False, keyring=keyring)
            verify_head(repository, keyring)
            text = f"{verb.capitalize()} {about} {argument}".strip()[:72] + f"\n\n{told(command)}\n"
            files = {command_path(command): encode_command(command)}
            message = text + _sources(repository.commit(repository.head or ""))
            return publish(repository, Change({}, files, message, now), keyring.release, repository.head)


def find(look: dict[str, Any], name: str) -> dict[str, Any]:
    """Return one rollout of a look.

    Raises:
        NoRollout: there is none of that name.
    """
    for one in look["rollouts"]:
        if one["name"] == name:
            found: dict[str, Any] = one
            return found
    known = ", ".join(one["name"] for one in look["rollouts"][:5]) or "none"
    raise NoRollout(f"no rollout of {name[:80]!r}", do=f"`edgeferry rollout list` shows them (there are: {known})")


def user() -> str:
    """Return who gives orders here."""
    try:
        return f"user/{getpass.getuser()}"
    except (KeyError, OSError):
        return "user/unknown"


def _sources(commit: bytes) -> str:
    """Return the trailers that say which source commits are in force: a commit with an order changes none."""
    lines = [line for line in commit.decode(errors="replace").splitlines() if line.startswith("Source-Commit: ")]
    return "\n" + "\n".join(lines) + "\n" if lines else ""
