"""A whole hub in one process: the steps in one thread, the service in the main one."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from agent.wire.errors import EdgeferryError
from agent.wire.trust import paths
from gitops.authority import Authority
from gitops.delta_maker import DeltaMaker
from gitops.keys import write_over
from gitops.opening import FleetHome, MainSource, Opened, open_fleet
from gitops.serve.app import App
from gitops.serve.notifier import Notifier
from gitops.serve.server import Server, Tls
from gitops.serve.view import HubView, TrustFiles, git_objects
from gitops.service import Service
from gitops.state_dir import StateDir, read_operator_token
from gitops.store.opening import open_store
from gitops.upkeep import drop_unreferenced, merge_packs
from gitops.watch import Watch, local_git_folder

FROM_CLUSTERS: Final = ("report:", "joined:", "command:")
"""Reasons to step that have nothing to do with the sources."""

_JITTER: Final = 0.1
_UPKEEP_S: Final = 600.0
_ROUNDS_A_DAY: Final = 144
_log: Final = logging.getLogger("edgeferry.hub")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how the hub is reached.

    Attributes:
        port: 0 takes a free one.
        tls_cert, tls_key: None for plain HTTP, or for a certificate of the hub's own authority.
        tls_names: host names and addresses of that certificate; empty for none.
        client_ca: agents' certificates signed by it are their identity, besides those of the hub's own authority.
        hook_secret: of the push webhook; empty takes it from anybody, as it only makes the hub look.
    """

    host: str
    port: int
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_names: tuple[str, ...] = ()
    client_ca: Path | None = None
    hook_secret: str = ""


def serve_hub(
    state: StateDir,
    source: MainSource,
    fleet: FleetHome,
    listening: Listening,
    *,
    poll_s: float,
    watch: bool,
    database: str = "",
) -> None:
    """Run the hub until SIGTERM or SIGINT.

    Args:
        state: its directory, made where absent.
        source: the first model repository.
        fleet: where the fleet repository is.
        listening: where it is reached.
        poll_s: seconds between looks at the sources, give or take a tenth.
        watch: look at once when a repository on this machine gets a commit.
        database: URL of the database; empty for the file in the state directory.

    Raises:
        EdgeferryError: it cannot be opened, or not listen.
    """
    state.make()
    token = read_operator_token(state)
    store = open_store(database or state.database)
    opened = open_fleet(state, source, fleet)
    folder = local_git_folder(source.url) if watch else None
    watching = Watch(poll_s=poll_s, jitter=_JITTER, folder=folder)
    notifier = Notifier()
    deltas = DeltaMaker(opened.artifacts, store, lambda: opened.hub.published)

    def published(clusters: tuple[str, ...] | None) -> None:
        notifier.published(clusters)
        deltas.wake()

    def wake(reason: str) -> None:
        watching.poke(reason)
        deltas.wake()

    wait = partial(_wait, watching, opened)
    service = Service(opened.hub, store, wait, published, notifier.waiting)
    authority = Authority.open(state.keys, create=True)
    secrets = {"": listening.hook_secret} if listening.hook_secret else {}
    view = HubView(
        fleet=opened.keyring.fleet_id,
        clusters=opened.repository,
        objects=git_objects(opened.repository.path),
        store=store,
        artifacts=opened.artifacts,
        trust=lambda: _trust(opened),
        state=lambda: service.state,
        wake=wake,
        authority=authority,
        own_tls=bool(listening.tls_names),
        operator_token=token,
        hook_secrets=secrets,
        order=partial(service.order, lambda: watching.poke("command:")),
    )
    tls = tls_files(state, listening, authority)
    server = Server(App(view, notifier), listening.host, listening.port, tls)
    service.start()
    deltas.start()
    ended = threading.Event()
    renew = partial(_renew, state, listening, authority, server)
    upkeep = threading.Thread(target=_upkeep, args=(opened.repository.path, renew, ended), name="upkeep", daemon=True)
    upkeep.start()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: ended.set())
    try:
        server.start()
        _log.info("fleet %s is served at %s; state in %s", opened.keyring.fleet_id, server.url, state.root)
        ended.wait()
    finally:
        server.stop()
        deltas.stop()
        service.stop(lambda: watching.poke("stop"))
        watching.close()
        store.close()


def _wait(watching: Watch, opened: Opened, timeout_s: float | None) -> None:
    """Wait for something to do; sources and Git host are looked at again for all but what clusters say."""
    reasons = watching.wait(timeout_s)
    _log.debug("woken: %s", ", ".join(sorted(reasons)))
    if not all(reason.startswith(FROM_CLUSTERS) for reason in reasons):
        opened.sources.look_again()
        try:
            opened.repository.fetch()
        except EdgeferryError as error:
            _log.warning("%s", error)


def tls_files(state: StateDir, listening: Listening, authority: Authority) -> Tls | None:
    """Return what TLS is made of; a certificate of the hub's own authority is written anew. None for plain HTTP."""
    if listening.tls_cert is not None and listening.tls_key is not None:
        state.own_certificate.unlink(missing_ok=True)
        return Tls(listening.tls_cert, listening.tls_key, listening.client_ca, authority.path)
    if not listening.tls_names:
        state.own_certificate.unlink(missing_ok=True)
        return None
    key, certificate = authority.server(listening.tls_names, datetime.now(UTC))
    write_over(state.own_key, key)
    write_over(state.own_certificate, certificate)
    return Tls(state.own_certificate, state.own_key, listening.client_ca, authority.path)


def _renew(state: StateDir, listening: Listening, authority: Authority, server: Server) -> None:
    """Take the certificate that stands in the files, or that the hub's own authority gives, for new connections."""
    tls_files(state, listening, authority)
    server.renew()


def _upkeep(fleet: Path, renew: Callable[[], None], ended: threading.Event) -> None:
    """Merge packs now and then, and once a day renew the certificate and drop what nothing refers to any more."""
    rounds = itertools.count(1)
    while not ended.wait(_UPKEEP_S):
        try:
            merge_packs(fleet)
            if next(rounds) % _ROUNDS_A_DAY == 0:
                renew()
                drop_unreferenced(fleet)
        except EdgeferryError as error:
            _log.warning("%s", error)


def _trust(opened: Opened) -> TrustFiles:
    document, signatures = paths(opened.hub.trust)
    read = opened.repository.read
    files = [read(path) or opened.trust_files[path] for path in (document, signatures)]
    return TrustFiles(opened.hub.trust, *files)
