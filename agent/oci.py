"""A client of OCI registries for pulling by digest, over the standard library.

Source: OCI distribution specification 1.1; token authentication of the distribution project; RFC 9110 for ranges.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlencode, urlsplit

from agent.address import BadUrl, Origin, resolve
from agent.http import Answer, Body, Connection, Opener, UnexpectedAnswer, delayed, retry_after_s
from agent.referrers import Referrer, fallback_tag, read_referrers
from agent.wire.canonical import digest as digest_of
from agent.wire.canonical import is_digest
from agent.wire.errors import Retry, Stop

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
MOST_MANIFEST_BYTES: Final = 4 << 20
REDIRECTS: Final = (301, 302, 303, 307, 308)

_ACCEPT: Final = f"{OCI_MANIFEST}, {DOCKER_MANIFEST}, {OCI_INDEX}"
_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART}){{0,31}}\Z")
_LOGIN_ADVICE: Final = "give this site a login in registries.json, or see what its release names"
_MOST_REDIRECTS: Final = 5
_MOST_TOKEN_BYTES: Final = 1 << 20
_CHALLENGE: Final = re.compile(r'(\w+)="([^"\\]{0,1000})"')
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\Z")


class RegistryRefuses(Retry):
    """The registry, or the hub in its place, does not let this site have it."""

    code = "EF2105"
    delay_s = 60.0


class NotInRegistry(Retry):
    """The registry does not have it, or not yet."""

    code = "EF2106"
    delay_s = 60.0


class RegistryFault(Retry):
    """The registry answered that it cannot."""

    code = "EF2107"
    delay_s = 15.0


class BadReference(Stop):
    """A reference does not name a repository that could be asked."""

    code = "EF2108"


class OtherBytes(Retry):
    """What came is not what was asked for, by its digest. It is thrown away; a mended mirror will do."""

    code = "EF2109"
    delay_s = 15.0


class Stream(Protocol):
    """Bytes of one blob, on their way.

    Attributes:
        first: place of the next byte in the blob; 0 where the source could not go on in the middle.
    """

    first: int

    def read(self) -> bytes:
        """Return the next bytes, empty at the end; raises Retry when the way breaks."""


Login = Callable[[str], tuple[str, str] | None]
"""Host with port → user and password for it, or None."""


@dataclass(slots=True)
class _Download:
    """The part of a body that belongs to the blob."""

    first: int
    body: Body

    def read(self) -> bytes:
        return self.body.read()


class Registry:
    """One registry. Connections to it, and to where it redirects, are kept; used by one thread at a time.

    Args:
        origin: where ``/v2/`` stands below.
        connect: makes connections; decides what TLS trusts.
        login: gives user and password of a host; None for a registry that takes ``authorization``.
        authorization: gives the value of the header for every request to ``origin``; None for none.
        plain_http: hosts with port that may be asked without TLS.
        actions: what tokens are asked for: ``pull``, or ``pull,push``.
    """

    def __init__(
        self,
        origin: Origin,
        connect: Opener = Connection,
        login: Login | None = None,
        authorization: Callable[[], str] | None = None,
        plain_http: frozenset[str] = frozenset(),
        actions: str = "pull",
    ) -> None:
        self._actions = actions
        self._origin = origin
        self._connect = connect
        self._login = login
        self._authorization = authorization
        self._plain_http = plain_http
        self._lines: dict[tuple[str, str, int], Connection] = {}
        self._tokens: dict[str, str] = {}
        self._check_plain(origin)

    def manifest(self, repository: str, digest: str) -> bytes:
        """Return the bytes of a manifest, verified.

        Raises:
            BadReference: repository or digest is none.
            Retry: not now, or other bytes came: see the classes here and in agent/http.py.
        """
        path = self._path(repository, "manifests", digest)
        with self._get(repository, path, {"Accept": _ACCEPT}) as body:
            data = body.read_all(MOST_MANIFEST_BYTES)
        if digest_of(data) != digest:
            raise OtherBytes(f"other bytes than {digest}", where=f"{self._origin}{path}")
        return data

    def ask(
        self,
        method: str,
        repository: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Return the registry's answer to one request, whatever its status; no redirect is followed.

        Args:
            method: of HTTP.
            repository: that the request is about, for the token.
            path: from ``/v2/`` on.
            headers: more of them.
            body: of the request.

        Raises:
            Retry: no answer, or no login.
        """
        line = self._line(self._origin)
        for fresh in (False, True):
            fixed = self._authorization
            authorization = self._tokens.get(repository, "") if fixed is None else fixed()
            sent: dict[str, str] = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            answer = line.ask(method, path, sent, body, most_bytes=MOST_MANIFEST_BYTES)
            if answer.status != 401 or fresh or fixed is not None:
                break
            self._tokens[repository] = self._authorize(answer.headers.get("www-authenticate", ""), repository)
        if answer.status in (401, 403):
            raise RegistryRefuses(f"status {answer.status}", where=f"{self._origin}{path}", do=_LOGIN_ADVICE)
        return answer

    def referrers(self, repository: str, subject: str, artifact_type: str) -> tuple[Referrer, ...]:
        """Return what refers to a manifest, by the API or, where the registry has none, by the tag schema.

        Raises:
            BadReference: repository or digest is none.
            Retry: not now.
        """
        path = self._path(repository, "referrers", subject)
        tag = f"/v2/{repository}/manifests/{fallback_tag(subject)}"
        for place in (f"{path}?{urlencode({'artifactType': artifact_type})}", tag):
            try:
                with self._get(repository, place, {"Accept": OCI_INDEX}) as body:
                    return read_referrers(body.read_all(MOST_MANIFEST_BYTES), artifact_type)
            except NotInRegistry:
                continue
        return ()

    @contextmanager
    def blob(self, repository: str, digest: str, size_bytes: int, first: int = 0) -> Iterator[Stream]:
        """Give the bytes of a blob, from ``first`` on where the registry can, else from the start. Not verified.

        Args:
            repository: that holds it.
            digest: of the whole blob.
            size_bytes: of the whole blob; no range past it is asked for, as registries differ in what they answer.
            first: how much is here already; less than ``size_bytes``.

        Raises:
            BadReference: repository or digest is none.
            Retry: not now; while reading, too.
        """
        path = self._path(repository, "blobs", digest)
        with open_range(lambda headers: self._get(repository, path, headers), size_bytes, first) as stream:
            yield stream

    def close(self) -> None:
        """Let go of all connections."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def _path(self, repository: str, what: str, digest: str) -> str:
        if len(repository) > 255 or not _REPOSITORY.match(repository) or not is_digest(digest):
            raise BadReference(f"{repository[:200]!r} with {digest[:80]!r} names nothing", where=str(self._origin))
        return f"/v2/{repository}/{what}/{digest}"

    @contextmanager
    def _get(self, repository: str, path: str, headers: Mapping[str, str]) -> Iterator[Body]:
        sent = dict(headers)
        fixed = self._authorization
        authorization = self._tokens.get(repository, "") if fixed is None else fixed()
        if authorization:
            sent["Authorization"] = authorization
        origin, target, fresh = self._origin, path, fixed is not None
        for _ in range(_MOST_REDIRECTS + 1):
            line = self._line(origin)
            body = line.open("GET", target, {"Accept-Encoding": "identity", **sent})
            try:
                if body.status == 401 and origin == self._origin and not fresh:
                    fresh = True
                    challenge = body.headers.get("www-authenticate", "")
                    body.read_all(_MOST_TOKEN_BYTES)
                    self._tokens[repository] = sent["Authorization"] = self._authorize(challenge, repository)
                    continue
                if body.status in REDIRECTS:
                    body.read_all(_MOST_TOKEN_BYTES)
                    origin, target = self._follow(origin, target, body)
                    if origin != self._origin:
                        sent.pop("Authorization", None)
                    continue
                if body.status not in (200, 206, 416):
                    raise _fault(body)
                if body.headers.get("content-encoding", "identity") != "identity":
                    raise UnexpectedAnswer("compressed, though plain bytes were asked for", where=body.where)
                yield body
            finally:
                if body.size_bytes != 0 or body.status == 416:
                    line.close()  # unread bytes of this answer would be taken for the next one
            return
        raise RegistryFault(f"more than {_MOST_REDIRECTS} redirects", where=f"{self._origin}{path}")

    def _line(self, origin: Origin) -> Connection:
        key = (origin.scheme, origin.host, origin.port)
        if key not in self._lines:
            self._lines[key] = self._connect(origin)
        return self._lines[key]

    def _follow(self, origin: Origin, target: str, body: Body) -> tuple[Origin, str]:
        try:
            here = f"{origin.scheme}://{origin.authority}{origin.prefix}{target}"
            following, path = resolve(body.headers.get("location", ""), here)
        except BadUrl as error:
            raise RegistryFault(f"redirects to nowhere: {error.what}", where=body.where) from None
        self._check_plain(following)
        home = self._origin
        if (following.scheme, following.authority) == (home.scheme, home.authority) and path.startswith(home.prefix):
            return home, path.removeprefix(home.prefix)
        return following, path

    def _check_plain(self, origin: Origin) -> None:
        if origin.scheme == "http" and not origin.loopback and origin.authority not in self._plain_http:
            raise BadReference(
                "plain HTTP to another machine",
                where=str(origin),
                do=f"give it TLS, or put {origin.authority} into insecure_registries of agent.json",
            )

    def _authorize(self, challenge: str, repository: str) -> str:
        """Return the Authorization header that a challenge asks for."""
        scheme, _, rest = challenge.partition(" ")
        login = self._login(self._origin.authority) if self._login else None
        if scheme.lower() == "basic" and login is not None:
            return _basic(login)
        if scheme.lower() != "bearer":
            raise RegistryRefuses("it wants a login, and there is none", where=str(self._origin), do=_LOGIN_ADVICE)
        asked = dict(_CHALLENGE.findall(rest))
        try:
            realm, path = resolve(asked.get("realm", ""))
        except BadUrl:
            raise RegistryFault("it names no place that gives tokens", where=str(self._origin)) from None
        self._check_plain(realm)
        query = urlencode({"service": asked.get("service", ""), "scope": f"repository:{repository}:{self._actions}"})
        path = f"{path}{'&' if '?' in path else '?'}{query}"
        headers = {"Accept": "application/json"} | ({"Authorization": _basic(login)} if login is not None else {})
        answer = self._line(realm).ask("GET", path, headers, most_bytes=_MOST_TOKEN_BYTES)
        return f"Bearer {_token(answer, str(realm))}"


@contextmanager
def open_range(
    get: Callable[[Mapping[str, str]], AbstractContextManager[Body]], size_bytes: int, first: int
) -> Iterator[Stream]:
    """Give bytes ``first`` to the end of what ``get`` fetches, or all of it where ranges are not understood."""
    asked = {"Range": f"bytes={first}-{size_bytes - 1}"} if first else {}
    with get(asked) as body:
        if body.status == 206:
            span = _CONTENT_RANGE.match(body.headers.get("content-range", ""))
            if span is None or int(span[1]) != first:
                raise UnexpectedAnswer(f"another range than from {first} on", where=body.where)
            yield _Download(first, body)
            return
        if body.status == 200:
            yield _Download(0, body)
            return
    with get({}) as body:  # 416: whatever it has against the range, it may give the whole
        if body.status != 200:
            raise RegistryFault(f"status {body.status}", where=body.where)
        yield _Download(0, body)


def read_logins(data: bytes, where: str) -> Login:
    """Return the logins of a docker ``config.json``: ``{"auths": {HOST: {"auth": base64 of USER:PASSWORD}}}``.

    Raises:
        BadReference: it is not of that form. What it holds is not said.
    """
    try:
        auths = json.loads(data).get("auths", {})
        logins = {_host(name): _split(one["auth"]) for name, one in auths.items() if one.get("auth")}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise BadReference("not a docker config.json", where=where, do="write it with docker or skopeo login") from None
    return lambda host: logins.get(host) or logins.get(host.removesuffix(":443"))


def _host(name: str) -> str:
    host = (urlsplit(name).netloc if "://" in name else name.partition("/")[0]).lower()
    return "registry-1.docker.io" if host in ("index.docker.io", "docker.io") else host


def _split(auth: str) -> tuple[str, str]:
    user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    if not colon:
        raise ValueError("no password")
    return user, password


def _basic(login: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


def _token(answer: Answer, where: str) -> str:
    if answer.status in (400, 401, 403):
        raise RegistryRefuses(f"no token: status {answer.status}", where=where, do=_LOGIN_ADVICE)
    if answer.status != 200:
        raise delayed(RegistryFault(f"no token: status {answer.status}", where=where), retry_after_s(answer, 15.0))
    try:
        value = json.loads(answer.body)
        token = value.get("token") or value.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryFault("what it gave is no token", where=where)
    return token


def _fault(body: Body) -> Retry:
    if body.status in (401, 403):
        return RegistryRefuses(f"status {body.status}", where=body.where, do=_LOGIN_ADVICE)
    if body.status == 404:
        return NotInRegistry("it is not there", where=body.where, do="see whether the push to the registry is complete")
    fault = RegistryFault(f"status {body.status}", where=body.where)
    return delayed(fault, retry_after_s(body, fault.delay_s))
