"""Where artifacts come from: what an artifact's ``ref`` means at this site."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import unquote

from agent.address import BadUrl, Origin, resolve
from agent.config import Config
from agent.http import CHUNK_BYTES, Body, Connection, tls_context
from agent.layout import REGISTRIES
from agent.oci import (
    MOST_MANIFEST_BYTES,
    REDIRECTS,
    BadReference,
    NotInRegistry,
    OtherBytes,
    Registry,
    RegistryFault,
    Stream,
    open_range,
    read_logins,
)
from agent.proof import Proof
from agent.referrers import Referrer
from agent.wire.canonical import digest as digest_of

_MOST_REDIRECTS: Final = 5
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


Site = Callable[[str], tuple[Connection, str]]
"""URL → the connection to ask, and the path to ask for; refuses what may not be asked."""


class Source(Protocol):
    """One place that holds the bytes of one artifact."""

    def manifest(self, digest: str) -> bytes:
        """Return a manifest, verified."""

    def blob(self, digest: str, size_bytes: int, first: int) -> AbstractContextManager[Stream]:
        """Give the bytes of a blob from ``first`` on, or from 0 where the place cannot; not verified."""

    def referrers(self, subject: str, artifact_type: str) -> tuple[Referrer, ...]:
        """Return what the place knows to refer to a manifest; nothing where it cannot know."""


class Sources:
    """Opens references, and keeps the connections that this takes. Used by one thread at a time.

    Args:
        config: ``hub``, ``store``, ``ca``, ``file_roots``, ``insecure_registries`` of it.
        proof: who this cluster is: for the hub, and for nobody else.
        state: the state directory, for the logins of registries.
    """

    def __init__(self, config: Config, proof: Proof, state: Path) -> None:
        self._config = config
        self._proof = proof
        self._state = state
        self._plain = frozenset(config.insecure_registries)
        self._registries: dict[str, Registry] = {}
        self._sites: dict[str, Connection] = {}

    def open(self, ref: str) -> Source:
        """Return the place that ``ref`` names.

        Raises:
            BadReference: no such kind of place, or one that this site's settings do not allow.
            BadUrl: an address cannot be used.
        """
        scheme, separator, rest = ref.partition("://")
        if not separator or not ref.isprintable():
            raise BadReference(f"{ref[:200]!r} names no place", do=_KINDS)
        match scheme:
            case "hub":
                return self._hub(rest)
            case "oci":
                return self._oci(rest)
            case "https" | "http":
                return _SingleFile(self._site, ref)
            case "file":
                return _LocalFile(self._local(ref))
        raise BadReference(f"{ref[:200]!r}: no such kind of place", do=_KINDS)

    def close(self) -> None:
        """Let go of all connections."""
        for registry in self._registries.values():
            registry.close()
        for site in self._sites.values():
            site.close()

    def _hub(self, repository: str) -> Source:
        store = self._config.store
        if not store:
            if not self._config.hub:
                raise BadReference(
                    f"hub://{repository[:200]}, and this site has no hub",
                    do="set `store` in agent.json to where the artifacts are: oci://, https:// or a directory",
                )
            return _Repository(self._registry("", Origin.parse(self._config.hub), self._authorization), repository)
        if store.startswith("oci://"):
            return self._oci(f"{store.removeprefix('oci://').rstrip('/')}/{repository}")
        if "://" in store:
            return _BlobSite(self._site, store.rstrip("/"))
        return _BlobFolder(Path(store))

    def _oci(self, rest: str) -> Source:
        host, _, repository = rest.partition("/")
        if host == "docker.io":
            host = "registry-1.docker.io"
        secure = Origin.parse(f"https://{host}")
        if secure.prefix or not repository:
            raise BadReference(f"oci://{rest[:200]} names no repository", do=_KINDS)
        plain = host in self._plain or (secure.loopback and not self._config.ca)
        return _Repository(self._registry(host, Origin.parse(f"http://{host}") if plain else secure), repository)

    def _registry(self, host: str, origin: Origin, authorization: Callable[[], str] | None = None) -> Registry:
        if host not in self._registries:
            path = self._state / REGISTRIES
            login = read_logins(path.read_bytes(), str(path)) if host and path.exists() else None
            plain = self._plain if host else self._plain | {origin.authority}
            self._registries[host] = Registry(origin, self._connect, login, authorization, plain)
        return self._registries[host]

    def _site(self, url: str) -> tuple[Connection, str]:
        origin, path = resolve(url)
        if origin.scheme == "http" and not origin.loopback and origin.authority not in self._plain:
            raise BadReference("plain HTTP to another machine", where=str(origin), do="use https")
        if str(origin) not in self._sites:
            self._sites[str(origin)] = self._connect(origin)
        return self._sites[str(origin)], path

    def _connect(self, origin: Origin) -> Connection:
        if origin.scheme != "https":
            return Connection(origin)
        hub = Origin.parse(self._config.hub) if self._config.hub else None
        ours = hub is not None and hub.authority == origin.authority
        return Connection(origin, self._proof.tls if ours else tls_context(self._config.ca))

    def _authorization(self) -> str:
        return self._proof.headers().get("Authorization", "")

    def _local(self, ref: str) -> tuple[Path, str]:
        """Return the root that allows a ``file://`` reference, and the path below it."""
        host, slash, below = ref.removeprefix("file://").partition("/")
        path = Path(unquote(slash + below))
        if host or not path.is_absolute() or ".." in path.parts:
            raise BadReference(f"{ref[:200]!r} is no absolute path", do="write it like file:///srv/models/a.onnx")
        for root in self._config.file_roots:
            if path.is_relative_to(root) and path != Path(root):
                return Path(root), str(path.relative_to(root))
        raise BadReference(
            f"{ref[:200]!r} is not below a directory that this site allows", do="add it to file_roots in agent.json"
        )


_KINDS: Final = "use hub://REPOSITORY, oci://REGISTRY/REPOSITORY, https://… or file:///…"


@dataclass(frozen=True, slots=True)
class _Repository:
    registry: Registry
    repository: str

    def manifest(self, digest: str) -> bytes:
        return self.registry.manifest(self.repository, digest)

    def blob(self, digest: str, size_bytes: int, first: int) -> AbstractContextManager[Stream]:
        return self.registry.blob(self.repository, digest, size_bytes, first)

    def referrers(self, subject: str, artifact_type: str) -> tuple[Referrer, ...]:
        return self.registry.referrers(self.repository, subject, artifact_type)


@dataclass(frozen=True, slots=True)
class _SingleFile:
    """One file at one address."""

    site: Site
    url: str

    def manifest(self, digest: str) -> bytes:
        raise BadReference("one file's address cannot hold an artifact of several", where=self.url[:200], do=_KINDS)

    def blob(self, digest: str, size_bytes: int, first: int) -> AbstractContextManager[Stream]:
        return _ranged(self.site, self.url, size_bytes, first)

    def referrers(self, _subject: str, _artifact_type: str) -> tuple[Referrer, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class _BlobSite:
    """A web server over the directory of an OCI layout."""

    site: Site
    base: str

    def manifest(self, digest: str) -> bytes:
        with _ranged(self.site, self._url(digest), 1, 0) as stream:
            return _whole(stream, digest, self._url(digest))

    def blob(self, digest: str, size_bytes: int, first: int) -> AbstractContextManager[Stream]:
        return _ranged(self.site, self._url(digest), size_bytes, first)

    def referrers(self, _subject: str, _artifact_type: str) -> tuple[Referrer, ...]:
        return ()

    def _url(self, digest: str) -> str:
        return f"{self.base}/blobs/{digest.replace(':', '/')}"


@dataclass(frozen=True, slots=True)
class _BlobFolder:
    """The directory of an OCI layout. A person named it; links within it are not followed."""

    root: Path

    def manifest(self, digest: str) -> bytes:
        with self.blob(digest, 1, 0) as stream:
            return _whole(stream, digest, str(self.root))

    def blob(self, digest: str, size_bytes: int, first: int) -> AbstractContextManager[Stream]:
        return _opened(self.root, f"blobs/{digest.replace(':', '/')}", first)

    def referrers(self, _subject: str, _artifact_type: str) -> tuple[Referrer, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class _LocalFile:
    place: tuple[Path, str]

    def manifest(self, digest: str) -> bytes:
        raise BadReference("one file cannot hold an artifact of several", where=self.place[1][:200], do=_KINDS)

    def blob(self, digest: str, size_bytes: int, first: int) -> AbstractContextManager[Stream]:
        return _opened(*self.place, first)

    def referrers(self, _subject: str, _artifact_type: str) -> tuple[Referrer, ...]:
        return ()


@dataclass(slots=True)
class _FileStream:
    first: int
    file: BinaryIO

    def read(self) -> bytes:
        return self.file.read(CHUNK_BYTES)


@contextmanager
def _opened(root: Path, path: str, first: int) -> Iterator[Stream]:
    """Give a file below ``root``; a link anywhere below it, or anything but a plain file, is not there."""
    try:
        file = os.fdopen(_descend(root, path), "rb")
    except OSError as error:
        raise NotInRegistry(error.strerror or str(error), where=f"{root}/{path}"[:400]) from None
    with file:
        file.seek(first)
        yield _FileStream(first, file)


def _descend(root: Path, path: str) -> int:
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *above, last = path.split("/")
        for part in above:
            following = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = following
        found = os.open(last, _FILE, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise FileNotFoundError(0, "not a plain file")
    return found


@contextmanager
def _ranged(site: Site, url: str, size_bytes: int, first: int) -> Iterator[Stream]:
    with open_range(lambda headers: _get(site, url, headers), size_bytes, first) as stream:
        yield stream


@contextmanager
def _get(site: Site, url: str, headers: Mapping[str, str]) -> Iterator[Body]:
    """Give the answer at ``url``, after redirects. No secret is ever sent here, so they may lead anywhere over TLS."""
    for _ in range(_MOST_REDIRECTS + 1):
        connection, path = site(url)
        body = connection.open("GET", path, {"Accept-Encoding": "identity", **headers})
        try:
            if body.status in REDIRECTS:
                url = _joined(body, url)
                continue
            if body.status == 404:
                raise NotInRegistry("it is not there", where=body.where)
            if body.status not in (200, 206, 416) or body.headers.get("content-encoding", "identity") != "identity":
                raise RegistryFault(f"status {body.status}", where=body.where)
            yield body
        finally:
            if body.size_bytes != 0:
                connection.close()
        return
    raise RegistryFault(f"more than {_MOST_REDIRECTS} redirects", where=url[:200])


def _joined(body: Body, url: str) -> str:
    try:
        origin, path = resolve(body.headers.get("location", ""), url)
    except BadUrl as error:
        raise RegistryFault(f"redirects to nowhere: {error.what}", where=body.where) from None
    return f"{origin}{path}"


def _whole(stream: Stream, digest: str, where: str) -> bytes:
    data = b""
    while part := stream.read():
        data += part
        if len(data) > MOST_MANIFEST_BYTES:
            raise OtherBytes(f"more than {MOST_MANIFEST_BYTES} bytes, which is no manifest", where=where)
    if digest_of(data) != digest:
        raise OtherBytes(f"other bytes than {digest}", where=where)
    return data
