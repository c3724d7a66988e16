"""A hub's service on a real socket, over a real Git repository, with a clock that stands still."""

from __future__ import annotations

import http.client
import json
import queue
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pygit2
import pytest

from agent.wire.access import sign_access
from agent.wire.release import NAME, Entry, Release, encode_release
from agent.wire.signature import SigningKey
from agent.wire.trust import Trust, sign_trust
from gitops.artifacts import ArtifactStore
from gitops.authority import Authority
from gitops.serve.app import create_app
from gitops.serve.identity import hash_secret
from gitops.serve.notifier import Notifier
from gitops.serve.server import Server, Tls
from gitops.serve.view import HubState, HubView, TrustFiles, git_objects
from gitops.store import JoinToken
from gitops.store.sqlite import SqliteStore

NOW = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Hub:
    """The service and what stands around it."""

    root: Path
    tls: Tls | None = None
    hook_secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository = pygit2.init_repository(str(self.root / "fleet.git"), bare=True)
        self.store = SqliteStore(self.root / "hub.sqlite")
        self.artifacts = ArtifactStore.open(self.root / "artifacts")
        self.authority = Authority.open(self.root / "keys", create=True)
        self.commits: dict[str, str] = {}
        self.keys: dict[str, SigningKey] = {}
        self.credentials: dict[str, str] = {}
        self.woken: queue.Queue[str] = queue.Queue()
        self.notifier = Notifier()
        self.now = NOW
        self.state = HubState(head="f" * 40)
        root_key = SigningKey.generate()
        document, signatures = sign_trust(Trust("fleet-1", 1, (root_key.public,), (root_key.public,)), (root_key,))
        self.trust = TrustFiles(1, document, signatures)
        view = HubView(
            fleet="fleet-1",
            clusters=self,
            objects=git_objects(self.root / "fleet.git"),
            store=self.store,
            artifacts=self.artifacts,
            trust=lambda: self.trust,
            state=lambda: self.state,
            wake=self.woken.put,
            authority=self.authority,
            operator_token="op-token",
            hook_secrets=self.hook_secrets,
            now=lambda: self.now,
            jitter=lambda: 0.5,
        )
        self.app = create_app(view, self.notifier)
        self.server = Server(self.app, tls=self.tls)
        self.port, self.url = self.server.port, self.server.url

    def cluster_commit(self, cluster: str) -> str | None:
        return self.commits.get(cluster)

    def publish(
        self, cluster: str, files: Mapping[str, bytes] | None = None, *entries: Entry, sequence: int = 1
    ) -> str:
        release = Release("fleet-1", cluster, sequence, NOW, 1, entries, {})
        commit = self._commit({NAME: encode_release(release)[0], **(files or {})})
        self.commits[cluster] = commit
        self.notifier.published([cluster])
        return commit

    def _commit(self, files: Mapping[str, bytes]) -> str:
        who = pygit2.Signature("Edgeferry", "edgeferry@localhost", int(NOW.timestamp()), 0)
        return str(self.repository.create_commit(None, who, who, "overlay\n", self._tree(files), []))

    def _tree(self, files: Mapping[str, bytes]) -> pygit2.Oid:
        builder = self.repository.TreeBuilder()
        below: dict[str, dict[str, bytes]] = {}
        for path, data in files.items():
            name, _, rest = path.partition("/")
            if rest:
                below.setdefault(name, {})[rest] = data
            else:
                builder.insert(name, self.repository.create_blob(data), pygit2.enums.FileMode.BLOB)
        for name, inner in below.items():
            builder.insert(name, self._tree(inner), pygit2.enums.FileMode.TREE)
        return builder.write()

    def token(self, cluster: str, token: str = "join-token", **more: Any) -> str:
        self.store.add_token(
            JoinToken(hash_secret(token), cluster, self.now + timedelta(hours=1), **more), "ann", self.now
        )
        return token

    def join(self, cluster: str, key: SigningKey | None = None) -> str:
        """Register a cluster beside HTTP, and return an access token of it."""
        self.keys[cluster] = SigningKey.generate() if key is None else key
        token = self.token(cluster, f"token of {cluster}")
        self.credentials[cluster] = self.access(cluster)
        assert self.store.join(hash_secret(token), cluster, self.keys[cluster].public, (), self.now) == "joined"
        return self.credentials[cluster]

    def access(self, cluster: str, key: SigningKey | None = None) -> str:
        return sign_access(key or self.keys[cluster], "fleet-1", cluster, int(self.now.timestamp()))

    def connect(self, timeout_s: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def ask(
        self,
        method: str,
        path: str,
        *,
        bearer: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        own = connection or self.connect()
        sent = {**({"Authorization": f"Bearer {bearer}"} if bearer else {}), **(headers or {})}
        own.request(method, path, body=body, headers=sent)
        response = own.getresponse()
        answer = Answer(response.status, dict(response.headers.items()), response.read())
        if connection is None:
            own.close()
        return answer

    def close(self) -> None:
        self.server.stop()
        self.store.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    hub.server.start()
    yield hub
    hub.close()


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[Any]:
    """Gives hubs with other settings."""
    made: list[Hub] = []

    def make(**settings: Any) -> Hub:
        root = tmp_path / f"hub{len(made)}"
        root.mkdir()
        hub = Hub(root, **settings)
        hub.server.start()
        made.append(hub)
        return hub

    yield make
    for hub in made:
        hub.close()
