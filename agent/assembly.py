"""Putting an agent together from its state directory: what the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent import VERSION, durable
from agent.actions import Platform
from agent.clock import Clock, read_wall
from agent.config import BadConfig, Config, load_config
from agent.content import Content
from agent.courier import Courier, FolderPost, HubPost, Post
from agent.fetch import Transport, hub_connection, open_transport
from agent.journal import forget_failures
from agent.keys import agent_key
from agent.layout import CONTENT
from agent.loop import Bell
from agent.preview import preview
from agent.proof import Proof, open_proof
from agent.reconcile import Site, open_site
from agent.sources import Sources
from agent.speak import Voice
from agent.stage import SiteBytes
from agent.staging import Bytes
from agent.state import State, StateInUse, locked
from agent.steps import Plan
from agent.wire.errors import Retry

REPORTS_S: Final = 900.0
"""A report is pushed to a report repository so often even when nothing changed."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Everything that a running agent is made of."""

    site: Site
    transport: Transport
    courier: Courier
    voice: Voice
    bell: Bell


@contextmanager
def assembled(root: Path, *, retry: bool = False, kubeconfig: str = "") -> Iterator[Agent]:
    """Give the agent of a state directory, alone on it; what serves goes on when it is let go of.

    Args:
        root: the state directory, after a join.
        retry: try again what failed before.
        kubeconfig: in place of the one in the settings; empty for none.

    Raises:
        BadConfig: this agent has not joined.
        StateInUse: another agent works there.
    """
    config = configured(root, kubeconfig)
    with ExitStack() as stack:
        stack.enter_context(locked(root))
        durable.sweep(root)
        state = State.open(root)
        stack.callback(state.close)
        if retry:
            forget_failures(state)
        key = agent_key(root)
        proof = open_proof(root, config, key)
        bell = Bell()
        platform = open_platform(root, config)
        stack.callback(platform.close)
        instant = Clock(state).instant(*read_wall())
        store = open_store(root, config, proof)
        site = open_site(root, config, key.fingerprint, state, platform, store, bell.ring, instant)
        stack.callback(site.staging.close)
        transport = open_transport(config, proof, root)
        courier = Courier(_post(root, config, proof), key, bell.ring)
        stack.callback(courier.close)
        beat_s = config.report_s if config.hub else max(config.report_s, REPORTS_S) if config.reports else 0
        beat_ms = int(beat_s * 1000)
        yield Agent(site, transport, courier, Voice(beat_ms, agent_version(), bool(config.hub)), bell)


def foreseen(root: Path, *, offline: bool) -> tuple[Plan, str]:
    """Return what the next cycle would do, and why no newer release was asked for; empty where one was.

    Raises:
        BadConfig: this agent has not joined.
        Stop: the newest overlay would be refused.
    """
    config = load_config(root)
    with ExitStack() as stack:
        note = "for the release in force" if offline else ""
        if not offline:
            try:
                stack.enter_context(locked(root))
            except StateInUse:
                note = "an agent runs here: for the release that it has"
        state = State.read(root)
        stack.callback(state.close)
        proof = open_proof(root, config, agent_key(root))
        platform = open_platform(root, config)
        stack.callback(platform.close)
        instant = Clock(state).instant(*read_wall())
        store = open_store(root, config, proof)
        site = open_site(root, config, agent_key(root).fingerprint, state, platform, store, lambda: None, instant)
        received = None
        if not note:
            transport = open_transport(config, proof, root)
            stack.callback(transport.close)
            try:
                received = transport.poll(site.force.revision, 0.0)
            except Retry as error:
                note = f"for the release in force: {error}"
        return preview(site, received, instant), note


def configured(root: Path, kubeconfig: str = "") -> Config:
    """Return the settings of a joined agent.

    Raises:
        BadConfig: see ``load_config``; or a kubeconfig for another platform.
    """
    config = load_config(root)
    if not kubeconfig:
        return config
    if config.platform != "kubernetes":
        raise BadConfig(
            f"--kubeconfig is for platform kubernetes, this is {config.platform!r}",
            where=str(root),
            do="leave it out, or join again with --platform kubernetes",
        )
    return replace(config, kubeconfig=kubeconfig)


def open_platform(root: Path, config: Config) -> Platform:
    """Return the executor of plans for the site's platform.

    Raises:
        BadConfig: there is no such platform.
    """
    # Imported here: a host carries nothing of Kubernetes.
    if config.platform == "host":
        from agent.platforms.host import HostPlatform

        return HostPlatform(root, config)
    if config.platform == "kubernetes":
        from agent.platforms.kubernetes import KubernetesPlatform

        return KubernetesPlatform(root, config)
    raise BadConfig(f"unknown platform {config.platform!r}", where=str(root), do="it is host or kubernetes")


def _post(root: Path, config: Config, proof: Proof) -> Post:
    if config.hub:
        return HubPost(hub_connection(config, proof), proof)
    if config.reports:
        from agent.report_git import GitPost

        return GitPost(config, proof, root)
    return FolderPost(root)


def open_store(root: Path, config: Config, proof: Proof) -> Bytes:
    """Return where entries' bytes come from and stay."""
    return SiteBytes(Content(root / CONTENT), Sources(config, proof, root))


def agent_version() -> str:
    """Return the version of this distribution."""
    return VERSION
