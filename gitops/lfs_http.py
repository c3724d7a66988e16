"""The Git LFS batch API over HTTP(S), with the standard library. Everything that comes back is hostile."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from agent.wire.errors import Malformed
from agent.wire.fields import Fields
from gitops.git_cli import redacted

MEDIA_TYPE: Final = "application/vnd.git-lfs+json"
_ANSWER_BYTES: Final = 8 << 20


class LfsFailed(Exception):
    """The server does not give a file. Callers turn it into a fault of theirs."""


@dataclass(frozen=True, slots=True)
class Download:
    """Where one file is offered.

    Attributes:
        url: http or https.
        headers: to send there, and nowhere else.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


class LfsServer:
    """The LFS server of one Git repository, as git-lfs finds it from the repository's URL.

    Args:
        url: of the repository: http, https, or SSH (then ``git-lfs-authenticate`` says where the server is).
        timeout_s: of each network call.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            _Redirects(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)
        if url.startswith(("http://", "https://")):
            self._endpoint, self._headers = _endpoint(url), _userinfo(url)
        else:
            self._endpoint, self._headers = _by_ssh(url, timeout_s)

    def downloads(self, wanted: Sequence[tuple[str, int]]) -> dict[str, Download]:
        """Return sha256 → where it is, for all of ``wanted`` (sha256 and size).

        Raises:
            LfsFailed: the server cannot be reached, refuses, or does not have one of them.
        """
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "objects": [{"oid": oid, "size": size} for oid, size in wanted],
        }
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked
            f"{self._endpoint}/objects/batch",
            json.dumps(question).encode(),
            {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE, "User-Agent": "edgeferry"},
        )
        with self._asked(request) as answer:
            data = answer.read(_ANSWER_BYTES + 1)
        if len(data) > _ANSWER_BYTES:
            raise LfsFailed("the server's answer is too long")
        try:
            top = Fields.parse(data, "answer of the LFS server")
            found = dict(top.each("objects", self._download))
        except Malformed as error:
            raise LfsFailed(str(error)) from None
        for oid, _ in wanted:
            if oid not in found:
                raise LfsFailed(f"the server does not speak of {oid[:12]}")
        return found

    def open(self, download: Download) -> AbstractContextManager[HTTPResponse]:
        """Return the file as a stream.

        Raises:
            LfsFailed: it cannot be fetched.
        """
        request = urllib.request.Request(download.url, headers={"User-Agent": "edgeferry"})  # noqa: S310  # checked
        return self._answer(request, download.headers)

    def _download(self, item: Fields) -> tuple[str, Download]:
        oid = item.text("oid")
        said = item.one("error", lambda error: error.text("message", "no reason given", most=4096))
        if said is not None:
            raise LfsFailed(f"{oid[:12]}: {said[:200]}")
        offer = item.one("actions", lambda actions: actions.one("download", _offer))
        if offer is None:
            raise LfsFailed(f"the server offers no download of {oid[:12]}")
        scheme = urlsplit(offer.url).scheme
        if scheme != "https" and not (scheme == "http" and self._endpoint.startswith("http:")):
            raise LfsFailed(f"the server sends us to {scheme[:20]}:, which we do not follow")
        if _origin(offer.url) == _origin(self._endpoint) and not offer.headers:
            return oid, Download(offer.url, self._headers)
        return oid, offer

    def _asked(self, request: urllib.request.Request) -> AbstractContextManager[HTTPResponse]:
        """Ask with the credentials at hand, or else with those that git's credential helpers know."""
        try:
            return self._answer(request, self._headers)
        except LfsFailed:
            if self._headers or not (found := _from_helper(self._endpoint, self._timeout_s)):
                raise
            self._headers = found
            return self._answer(request, found)

    def _answer(
        self, request: urllib.request.Request, secret: Mapping[str, str]
    ) -> AbstractContextManager[HTTPResponse]:
        for name, value in secret.items():
            request.add_unredirected_header(name, value)  # a redirect does not carry it to another host
        try:
            answer = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise LfsFailed(f"{redacted(request.full_url)} answers {error.code} {error.reason}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise LfsFailed(f"{redacted(request.full_url)}: {getattr(error, 'reason', None) or error}") from None
        return closing(answer)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: object, code: int, msg: str, headers: object, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ({"https"} if req.full_url.startswith("https:") else {"http", "https"}):
            raise urllib.error.URLError(f"redirected to {newurl[:100]!r}, which we do not follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # as typed there


def _offer(item: Fields) -> Download:
    return Download(item.text("href", most=16_384), item.mapping("header"))


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith(".git"):
        path += ".git"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], f"{path}/info/lfs", "", ""))


def _userinfo(url: str) -> dict[str, str]:
    user = urlsplit(url).netloc.rpartition("@")[0]
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(unquote(user).encode()).decode()}


def _from_helper(url: str, timeout_s: float) -> dict[str, str]:
    parts = urlsplit(url)
    question = f"protocol={parts.scheme}\nhost={parts.netloc}\npath={parts.path.lstrip('/')}\n\n"
    try:
        answer = subprocess.run(
            ["git", "credential", "fill"],
            input=question.encode(),
            capture_output=True,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""},
            timeout=timeout_s,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found = dict(line.split("=", 1) for line in answer.decode(errors="replace").splitlines() if "=" in line)
    if "username" not in found or "password" not in found:
        return {}
    return _userinfo(f"https://{quote(found['username'], '')}:{quote(found['password'], '')}@x")


def _by_ssh(url: str, timeout_s: float) -> tuple[str, dict[str, str]]:
    """Ask the Git host where its LFS server is: ``git-lfs-authenticate PATH download``."""
    if url.startswith("ssh://"):
        parts = urlsplit(url)
        host, port, path = parts.netloc.rpartition(":")[0] or parts.netloc, parts.port, parts.path
        host = host if port else parts.netloc
    else:
        host, _, path = url.partition(":")
        port = None
    if host.startswith("-") or not host or not path:
        raise LfsFailed("no LFS server can be found from this URL")
    ssh = shlex.split(os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15"))
    command = [*ssh, *(["-p", str(port)] if port else []), host, f"git-lfs-authenticate {shlex.quote(path)} download"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=timeout_s, check=True, stdin=subprocess.DEVNULL)
        offer = _offer(Fields.parse(answer.stdout[:_ANSWER_BYTES], "answer of git-lfs-authenticate"))
    except (OSError, subprocess.SubprocessError, Malformed) as error:
        raise LfsFailed(f"git-lfs-authenticate on {host}: {error}") from None
    if urlsplit(offer.url).scheme not in ("http", "https"):
        raise LfsFailed(f"{host} names an LFS server that is not on HTTP")
    return offer.url.rstrip("/"), dict(offer.headers)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
