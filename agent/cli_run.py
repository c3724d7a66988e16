"""``edgeferry-agent run`` and ``edgeferry-agent once``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from agent.assembly import Agent, assembled
from agent.cli_output import as_json, output_option, state_option
from agent.cli_status import read_status, status_text
from agent.clock import read_wall
from agent.loop import ended_by_signals, note_once
from agent.loop import run as run_loop
from agent.reconcile import Outcome, cycle
from agent.speak import speak
from agent.wire.errors import EdgeferryError, Wait


class NotCurrent(Wait):
    """Not everything that is asked for runs."""

    code = "EF4056"


@click.command(short_help="Keep this cluster at its newest release.")
@state_option
@click.option("--retry", is_flag=True, help="Try again what failed at this site before.")
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False),
    help="Reach the Kubernetes cluster by this file, in place of the pod's own account.",
)
def run(state: Path, retry: bool, kubeconfig: str | None) -> None:
    """Keep this cluster at its newest release until SIGTERM; what serves goes on after that.

    \b
    Examples:
      edgeferry-agent run
      edgeferry-agent run --state /srv/edgeferry
      edgeferry-agent run --kubeconfig ~/.kube/edge-07
    """
    with assembled(state, retry=retry, kubeconfig=kubeconfig or "") as agent:
        ended_by_signals(agent.bell)
        run_loop(agent.site, agent.transport, agent.courier, agent.voice, agent.bell, _log)


@click.command(short_help="Do what there is to do now, and end.")
@state_option
@click.option("--until-current", is_flag=True, help="Go on until all that is asked for runs, or has failed.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds after which that is given up.")
@click.option("--retry", is_flag=True, help="Try again what failed at this site before.")
@output_option
def once(state: Path, until_current: bool, timeout: float, retry: bool, output: str) -> None:
    """Fetch the newest release, do what there is to do now, report, and end; what serves goes on.

    \b
    Examples:
      edgeferry-agent once
      edgeferry-agent once --until-current --timeout 60
      edgeferry-agent once --until-current --retry
    """
    with assembled(state, retry=retry) as agent:
        fault = _once(agent, timeout if until_current else 0.0)
    found = read_status(state)
    click.echo(as_json(found) if output == "json" else status_text(found))
    if fault is not None:
        raise fault
    late = [f"{one['kind']}/{one['name']}" for one in found["entries"] if not _current(one)]
    if until_current and late:
        raise NotCurrent(", ".join(late), where=str(state), do="see `edgeferry-agent status`")


def _once(agent: Agent, most_s: float) -> EdgeferryError | None:
    """Do one cycle, or cycles until nothing is on its way; return why that was not possible."""
    site, deadline_s = agent.site, time.monotonic() + most_s
    received, fault = None, None
    try:
        received = agent.transport.poll(site.force.revision, 0.0)
    except EdgeferryError as error:
        fault = error
    while True:
        instant = site.clock.instant(*read_wall())
        outcome: Outcome = cycle(site, received, instant)
        received = None
        note_once(site, fault, instant)
        speak(site, agent.voice, agent.courier, instant)
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or (outcome.settled and not site.staging.underway):
            break
        agent.bell.wait(int(min(outcome.next_ms, left_s * 1000)))
    agent.courier.settle(30.0)
    speak(site, agent.voice, agent.courier, site.clock.instant(*read_wall()))
    agent.transport.close()
    return site.fault or site.force.fault or fault or agent.courier.fault


def _current(one: dict[str, str]) -> bool:
    return bool(one["wanted"]) and one["digest"] == one["wanted"] and one["health"] == "current"


def _log(text: str) -> None:
    click.echo(text, err=True)
