"""``edgeferry-agent join``."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from agent import carried
from agent.cli_output import as_json, output_option, state_option
from agent.config import Config
from agent.join import Setting, join_hubless
from agent.join import join as join_hub
from agent.keys import agent_key
from agent.wire.errors import EdgeferryError
from agent.wire.facts import Fact

_REMOTE: Final = re.compile(r"[^/]+:")
"""How git names a repository on another machine, besides URLs: ``host:path``."""


@click.command(short_help="Become an edge cluster of a fleet.")
@state_option
@click.option("--cluster", required=True, help="Name of this cluster.")
@click.option("--hub", default="", help="Base URL of the hub.")
@click.option("--git", default="", help="URL of a fleet repository, for a fleet without a hub.")
@click.option("--git-ref", default="", help="Branch with the overlay, or of the whole fleet repository.")
@click.option("--folder", default="", help="Directory with the overlay, or with a checkout of the fleet repository.")
@click.option("--carried", is_flag=True, help="No network: overlays come by `edgeferry-agent import`.")
@click.option(
    "--reports", default="", help="URL of the repository that reports are pushed to; with --git and --folder."
)
@click.option(
    "--trust",
    type=click.Path(dir_okay=False, resolve_path=True, path_type=Path),
    help="trust/<n>.json of the fleet, its .sig beside it; with --git, --folder and --carried, in place of a token.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, resolve_path=True, path_type=Path),
    help="File with the join token (or, with --git, USER:PASSWORD), in place of $EDGEFERRY_TOKEN.",
)
@click.option("--platform", type=click.Choice(["host", "kubernetes"]), default="host", show_default=True)
@click.option("--kubeconfig", default="", help="How to reach the Kubernetes cluster; empty: the pod's own account.")
@click.option("--scope", type=click.Choice(["namespace", "cluster"]), default="namespace", show_default=True)
@click.option("--ca", default="", help="File with certificates to trust besides the system's.")
@click.option("--store", default="", help="Where artifacts of the hub come from: oci://…, https://… or a directory.")
@click.option("--first-port", type=int, default=18000, show_default=True, help="First port of a host's models.")
@click.option("--last-port", type=int, default=18999, show_default=True, help="Last port of a host's models.")
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address at which a host's models answer.")
@click.option("--set", "more", multiple=True, metavar="NAME=VALUE", help="Any other setting of agent.json.")
@click.option("--ca-hash", default="", help="sha256:… of the hub's own certificate authority, as the join line has it.")
@click.option("--insecure", is_flag=True, help="Allow plain HTTP to a hub on another machine.")
@output_option
def join(state: Path, output: str, **options: Any) -> None:
    """Make this machine or cluster an edge cluster of a fleet.

    The join token is read from $EDGEFERRY_TOKEN, from --token-file, or asked for; it never stands on the command line.
    The key is made here and stays here.

    \b
    Examples:
      EDGEFERRY_TOKEN=… edgeferry-agent join --hub https://hub.example:8443 --cluster milan-01 --ca-hash sha256:…
      edgeferry-agent join --hub https://hub.example:8443 --cluster edge-07 --platform kubernetes --token-file token
      edgeferry-agent join --git https://git.example/fleet.git --trust 1.json --cluster milan-01
      edgeferry-agent join --carried --trust 1.json --cluster milan-01
    """
    settings = _settings(options)
    cluster, hub = options["cluster"], options["hub"]
    if [bool(hub), bool(options["git"]), bool(options["folder"]), options["carried"]].count(True) != 1:
        raise click.UsageError("give exactly one of --hub, --git, --folder and --carried")
    if options["carried"]:
        options["folder"] = str(carried.folder(state))
        settings["store"] = str(carried.store(state))
    if hub:
        if options["trust"] is not None:
            raise click.UsageError("--trust is for --git, --folder and --carried: a hub hands over its own")
        if options["reports"]:
            raise click.UsageError("--reports is for --git and --folder: a hub takes reports itself")
        facts = _facts(state, cluster, settings)
        token = _secret(options["token_file"]) or click.prompt("Join token", hide_input=True, err=True)
        more: dict[str, Any] = {"insecure": options["insecure"], "ca_hash": options["ca_hash"]}
        config = join_hub(state, hub, cluster, token, facts=facts, settings=settings, **more)
    else:
        if options["trust"] is None:
            raise click.UsageError("without --hub, give --trust: the newest trust/<n>.json of the fleet repository")
        where = {
            "git": _absolute(options["git"]),
            "git_ref": options["git_ref"],
            "folder": _absolute(options["folder"]),
            "reports": _absolute(options["reports"]),
        }
        credential = _secret(options["token_file"])
        config = join_hubless(state, cluster, options["trust"], **where, credential=credential, settings=settings)
    key = agent_key(state)
    shown = {"cluster": cluster, "fleet": config.fleet, "state": str(state), "key": key.public}
    if output == "json":
        click.echo(as_json(shown | {"fingerprint": key.fingerprint}))
    else:
        click.echo(f"{cluster} joined fleet {config.fleet}, key {key.fingerprint}")
        if options["carried"]:
            click.echo(f"set `key: {key.public}` in clusters/{cluster}.yaml, and carry what `edgeferry export` writes")
        click.echo(f"next: edgeferry-agent run --state {state}")


def _settings(options: dict[str, Any]) -> dict[str, Setting]:
    """Return the settings that are not at their default."""
    defaults = Config("", "")
    settings: dict[str, Setting] = {
        name: options[name]
        for name in ("platform", "scope", "first_port", "last_port", "listen")
        if options[name] != getattr(defaults, name)
    }
    settings |= {name: _absolute(options[name]) for name in ("ca", "kubeconfig", "store") if options[name]}
    for one in options["more"]:
        name, equals, text = one.partition("=")
        if not equals:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", param_hint="--set")
        try:
            settings[name] = json.loads(text)
        except ValueError:
            settings[name] = text
    return settings


def _facts(state: Path, cluster: str, settings: dict[str, Setting]) -> tuple[Fact, ...]:
    """Return what the platform tells of itself: before the token is spent, so that a wrong address costs none."""
    from agent.assembly import open_platform

    chosen = {name: str(settings[name]) for name in ("platform", "kubeconfig", "scope") if name in settings}
    platform = open_platform(state, Config(cluster, "?", **chosen))  # type: ignore[arg-type]  # all of them are text
    try:
        now = datetime.now(UTC)
        facts = tuple(Fact(name, value, now) for name, value in sorted(platform.facts().items()))
        if chosen.get("platform") == "kubernetes":
            from agent.platforms.kubernetes_client import connect
            from agent.platforms.kubernetes_rights import check_rights

            check_rights(connect(chosen.get("kubeconfig", "")))
        return facts
    except EdgeferryError as error:
        named = chosen.get("kubeconfig") or "the pod's own account"
        error.do = f"{error.do or 'check it'}: this site's Kubernetes access is --kubeconfig, here {named}"
        raise
    finally:
        platform.close()


def _secret(file: Path | None) -> str:
    if file is None:
        return os.environ.get("EDGEFERRY_TOKEN", "")
    try:
        return file.read_text().strip()
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="--token-file") from None


def _absolute(path: str) -> str:
    """Return a path that holds from every directory; what is no path on this machine stays as it is."""
    is_here = path and "://" not in path and not _REMOTE.match(path)
    return str(Path(path).resolve()) if is_here else path
