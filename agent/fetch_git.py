"""Overlays from Git, with the git CLI: a cluster's own branch, or a branch of the whole fleet repository.

Nothing is checked out: the tree is read object by object, so that links, submodules and special files never
come into being. The repository kept here is a cache; a damaged one is made again.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final
from urllib.parse import urlsplit

from agent.config import BadConfig, Config
from agent.fetch import CredentialRefused, NothingPublished, Received
from agent.fetch_folder import fleet_path
from agent.layout import HUB_AUTHORITY
from agent.proof import Proof
from agent.wire.errors import Retry, Stop
from agent.wire.overlay import Limits, OverlayRefused, check_path
from agent.wire.release import NAME

_REF: Final = "refs/remotes/origin/overlay"
_TIMEOUT_S: Final = 600.0
_LOCAL_TIMEOUT_S: Final = 60.0
_MOST_PACK_BYTES: Final = 4 << 30
_MOST_WORDS_BYTES: Final = 4096
_LIMITS: Final = Limits()
_DAMAGED: Final = re.compile(
    r"Unable to create|\.lock|corrupt|bad object|loose object|not a git repository|unable to read"
    r"|missing (?:blob|tree|commit)|inflate|unresolved deltas|bad config|index-pack died"
    r"|did not send all necessary objects"
)
_REFUSED: Final = re.compile(r"Authentication failed|could not read (?:Username|Password)|Permission denied|403|401")
_ABSENT: Final = re.compile(
    r"couldn't find remote ref|Couldn't find remote ref|[Nn]ot found|does not exist|does not appear"
)
_HELPER: Final = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$EDGEFERRY_USER" "$EDGEFERRY_PASSWORD"; }; f'
)
_REF_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9._/-]{1,200}\Z")
_TREE_LINE: Final = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]{40,64}) +(\d+|-)\t(.+)\Z", re.DOTALL)


class GitFailed(Retry):
    """Git could not fetch; its own words are in the text."""

    code = "EF4027"
    delay_s = 15.0


class GitMissing(Stop):
    """The git program is not installed."""

    code = "EF4028"


class GitTransport:
    """Fetches one ref, and reads this cluster's directory of it when that changed.

    Args:
        config: ``git``, ``git_ref``, ``cluster``, ``ca`` and ``hub`` of it.
        proof: who this cluster is. It is given to the host of ``hub`` alone, or of ``git`` where there is no hub.
        repository: directory for what is fetched.
        limits: of an overlay.
    """

    def __init__(self, config: Config, proof: Proof, repository: Path, limits: Limits = _LIMITS) -> None:
        self._url = checked_url(config.git)
        self._ref = config.git_ref or f"refs/heads/cluster/{config.cluster}"
        if not _REF_NAME.match(self._ref) or ".." in self._ref:
            raise BadConfig(f"git_ref {self._ref!r} is no name of a branch", do="name a branch, as main")
        if not self._ref.startswith("refs/"):
            self._ref = f"refs/heads/{self._ref}"
        self._below = fleet_path(config.cluster)
        self._repository = repository
        self._beside = repository.parent
        self._limits = limits
        self._refused = ""
        self._woken = threading.Event()
        self._running: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._cluster = config.cluster
        place = _place(config.git)
        self._proof = proof if place and (not config.hub or _place(config.hub) == place) else None
        self._options, self._environment = _settings(config, place if self._proof else "", repository.parent)

    def poll(self, revision: str, wait_s: float) -> Received | None:
        """See ``Transport``; it looks once, then pauses."""
        found = None
        if not self._woken.is_set():
            try:
                found = self._look(revision)
            except OSError as error:
                raise GitFailed(f"{error.strerror or error}", where=str(error.filename or self._repository)) from None
            except Retry:
                if not self._woken.is_set():
                    raise
        if found is None:
            self._woken.wait(wait_s)
            self._woken.clear()
        return found

    def wake(self) -> None:
        """See ``Transport``."""
        self._woken.set()
        with self._lock:
            if self._running is not None:
                _kill(self._running)

    def close(self) -> None:
        """See ``Transport``."""

    def _look(self, revision: str) -> Received | None:
        with _alone(self._repository):
            return self._read(revision)

    def _read(self, revision: str) -> Received | None:
        self._fetch()
        tree = self._tree()
        if tree in (revision, self._refused):
            return None
        try:
            return Received(self._files(tree), tree, "git")
        except Stop:
            self._refused = tree
            raise

    def _fetch(self) -> None:
        try:
            self._fetch_once()
        except GitFailed as error:
            # A power cut leaves locks and half-written objects behind. All of it can be fetched again.
            if self._woken.is_set() or not self._repository.exists() or not _DAMAGED.search(error.what):
                raise
            shutil.rmtree(self._repository)
            self._fetch_once()

    def _fetch_once(self) -> None:
        if not (self._repository / "HEAD").exists():
            shutil.rmtree(self._repository, ignore_errors=True)
            self._git("init", "--quiet", "--bare", str(self._repository), inside=False)
        self._git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", self._url, f"+{self._ref}:{_REF}")

    def _tree(self) -> str:
        """Return the id of the tree that holds the overlay."""
        for directory in ("", f"{self._below}"):
            with suppress(GitFailed):
                self._git("cat-file", "-e", f"{_REF}:{directory}{'/' if directory else ''}{NAME}")
                return self._git("rev-parse", "--verify", f"{_REF}:{directory}").decode().strip()
        raise NothingPublished(f"no {NAME} at the root, nor below {self._below}", where=f"{self._url} {self._ref}")

    def _files(self, tree: str) -> dict[str, bytes]:
        listing = self._git("ls-tree", "-r", "-z", "--long", "--full-tree", tree)
        found = _listed(listing, self._limits, f"{self._url} {self._ref}")
        wanted = "".join(f"{oid}\n" for oid in found.values()).encode()
        out = self._git("cat-file", "--batch", "--buffer", stdin=wanted)
        files, at = {}, 0
        for path in found:
            end = out.index(b"\n", at)
            size = int(out[at:end].split(b" ")[2])
            files[path] = out[end + 1 : end + 1 + size]
            at = end + size + 2
        return files

    def _git(self, *arguments: str, stdin: bytes = b"", inside: bool = True) -> bytes:
        """Run git and return what it wrote. Pipes are files here: their size has a limit, whoever writes them."""
        place = [f"--git-dir={self._repository}"] if inside else []
        fetches = arguments[0] == "fetch"
        most = _MOST_PACK_BYTES if fetches else 2 * self._limits.total_bytes
        with (
            TemporaryFile(dir=self._beside) as asked,
            TemporaryFile(dir=self._beside) as out,
            TemporaryFile(dir=self._beside) as said,
        ):
            asked.write(stdin)
            asked.seek(0)
            try:
                process = subprocess.Popen(
                    ["git", *place, *self._options, *arguments],
                    stdin=asked,
                    stdout=out,
                    stderr=said,
                    env=self._environment | self._login(),
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise GitMissing("no git program", do="install git, or take overlays from the hub") from None
            self._wait(process, most, _TIMEOUT_S if fetches else _LOCAL_TIMEOUT_S)
            if process.returncode:
                said.seek(max(0, said.seek(0, os.SEEK_END) - _MOST_WORDS_BYTES))
                raise self._fault(arguments[0], said.read())
            out.seek(0)
            return out.read()

    def _login(self) -> dict[str, str]:
        """Return what the credential helper answers with; made anew for each command, as tokens are short-lived."""
        credential = "" if self._proof is None else self._proof.token()
        user, colon, password = credential.partition(":")
        if not colon:
            user, password = self._cluster, credential
        return {"EDGEFERRY_USER": user, "EDGEFERRY_PASSWORD": password} if password else {}

    def _wait(self, process: subprocess.Popen[bytes], most_bytes: int, timeout_s: float) -> None:
        with self._lock:
            self._running = process
        try:
            if self._woken.is_set():
                _kill(process)
            with suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise GitFailed("git did not end in time", where=self._url) from None
        finally:
            with self._lock:
                self._running = None
            if process.poll() is None:
                _kill(process)
                process.wait()

    def _fault(self, command: str, said: bytes) -> Retry:
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        lines = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-4:]
        text = " / ".join("".join(c for c in line if c.isprintable()) for line in lines)[:500]
        if command == "fetch" and _REFUSED.search(text):
            return CredentialRefused(text, where=self._url, do="check the credential that this site was given")
        if command == "fetch" and _ABSENT.search(text) and "Could not resolve" not in text:
            return NothingPublished(
                text, where=f"{self._url} {self._ref}", do="check `git` and `git_ref` in agent.json"
            )
        return GitFailed(
            f"git {command}: {text or 'killed'}", where=self._url, do="check the address and this site's link"
        )


@contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """Keep other processes of this site away, which would take our locks for those of a power cut."""
    with repository.with_name(f"{repository.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GitFailed("another process of this agent fetches now", where=str(repository)) from None
        yield


def checked_url(url: str) -> str:
    """Return the URL of a Git repository as it may stand on a command line.

    Raises:
        BadConfig: it carries a password, runs a command, or is none.
    """
    scheme = url.split("://", 1)[0] if "://" in url else ""
    if (
        url.startswith("-")
        or "::" in url
        or not url.isprintable()
        or scheme not in ("https", "http", "ssh", "git", "file", "")
    ):
        raise BadConfig(f"git: {url[:200]!r} is not the address of a Git repository", do="use https, ssh, git or file")
    try:
        password = urlsplit(url).password if scheme else None
    except ValueError as error:
        raise BadConfig(f"git: {error}", do="use https, ssh, git or file") from None
    if password is not None:
        raise BadConfig("git: a password stands in the address", do="leave it out; join with it as the credential")
    return url


def _settings(config: Config, place: str, state: Path) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment of every git command. Only the environment holds the secret."""
    settings = {
        "core.hooksPath": "/dev/null",
        "protocol.allow": "never",
        **{f"protocol.{one}.allow": "always" for one in ("https", "http", "ssh", "git", "file")},
        "transfer.fsckObjects": "true",
        "fetch.recurseSubmodules": "false",
        "gc.autoDetach": "false",
        "http.followRedirects": "false",
        "http.lowSpeedLimit": "1",
        "http.lowSpeedTime": "120",
        "core.askPass": "/bin/false",
    }
    pinned = state / HUB_AUTHORITY
    ca = str(pinned) if place and config.hub and pinned.exists() else config.ca
    if ca:
        settings["http.sslCAInfo"] = ca
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "EDGEFERRY_"))}
    environment |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }
    environment["GIT_SSH_COMMAND"] = os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=30")
    if place:
        settings[f"credential.{place}.helper"] = _HELPER
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return options, environment


def _place(url: str) -> str:
    """Return scheme, host and port of an HTTP URL; empty for others."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme in ("https", "http") else ""


def _listed(listing: bytes, limits: Limits, where: str) -> Mapping[str, str]:
    """Return path → object id of a tree of plain files within the limits."""
    found: dict[str, str] = {}
    total = 0
    for line in listing.split(b"\0")[:-1]:
        match = _TREE_LINE.match(line)
        if match is None or match[1] != b"100644":
            raise OverlayRefused(f"{line[-200:]!r}: a link, a submodule or a program", where=where)
        try:
            path = match[5].decode()
        except UnicodeDecodeError:
            raise OverlayRefused(f"{match[5][:200]!r} is not UTF-8", where=where) from None
        check_path(path, where)
        size = int(match[4])
        total += size
        found[path] = match[3].decode()
        if size > limits.file_bytes or total > limits.total_bytes or len(found) > limits.files:
            raise OverlayRefused(f"{path!r}: too large, or one file too many", where=where)
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
