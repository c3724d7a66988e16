"""Running git at a site: it never asks, never hangs, never fills the disk, and hands its secret to one host alone."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final
from urllib.parse import urlsplit

from agent.config import BadConfig, Config
from agent.layout import HUB_AUTHORITY
from agent.proof import Proof
from agent.wire.errors import Retry, Stop

TIMEOUT_S: Final = 600.0
LOCAL_TIMEOUT_S: Final = 60.0

_MOST_PACK_BYTES: Final = 4 << 30
_MOST_WORDS_BYTES: Final = 4096
_REMOTE: Final = ("fetch", "push")
_HELPER: Final = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$EDGEFERRY_USER" "$EDGEFERRY_PASSWORD"; }; f'
)


class GitFailed(Retry):
    """Git could not fetch; its own words are in the text."""

    code = "EF4027"
    delay_s = 15.0


class GitMissing(Stop):
    """The git program is not installed."""

    code = "EF4028"


class GitEnded(Exception):
    """git ended with an error; who asked makes a fault of it.

    Attributes:
        said: what it said, cut and cleaned.
    """

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class Git:
    """Runs git commands for one repository on another machine, or beside.

    Args:
        url: of that repository.
        config: ``cluster``, ``ca``, ``git`` and ``hub`` of it.
        proof: of this cluster. It is shown to the host of ``hub`` alone, or of ``git`` where there is no hub.
        state: the state directory; what git reads and writes on its way lies there, too.
        most_bytes: that a command other than a fetch may write.
    """

    def __init__(self, url: str, config: Config, proof: Proof, state: Path, most_bytes: int) -> None:
        self.url = url
        self._beside, self._most_bytes, self._cluster = state, most_bytes, config.cluster
        place = _place(url)
        self._proof = proof if place and place == _place(config.hub or config.git) else None
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self.interrupted = threading.Event()
        self._options, self._environment = _settings(config, place if self._proof else "", state)

    def run(self, directory: Path | None, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run git and return what it wrote. Pipes are files here: their size has a limit, whoever writes them.

        Args:
            directory: Git directory; None for none.
            arguments: command and options.
            stdin: what it reads.

        Raises:
            GitEnded: it failed.
            GitFailed: it did not end in time.
            GitMissing: there is no git.
        """
        place = [] if directory is None else [f"--git-dir={directory}"]
        remote = arguments[0] in _REMOTE
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
            most = _MOST_PACK_BYTES if remote else self._most_bytes
            self._wait(process, most, TIMEOUT_S if remote else LOCAL_TIMEOUT_S)
            if process.returncode:
                said.seek(max(0, said.seek(0, os.SEEK_END) - _MOST_WORDS_BYTES))
                raise GitEnded(_words(said.read()))
            out.seek(0)
            return out.read()

    def interrupt(self) -> None:
        """End what another thread runs, at once."""
        self.interrupted.set()
        with self._lock:
            if self._running is not None:
                _kill(self._running)

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
            if self.interrupted.is_set():
                _kill(process)
            with suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise GitFailed("git did not end in time", where=self.url) from None
        finally:
            with self._lock:
                self._running = None
            if process.poll() is None:
                _kill(process)
                process.wait()


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


def _words(said: bytes) -> str:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", " !"))] or lines[-4:]
    return " / ".join("".join(c for c in line if c.isprintable()) for line in lines)[:500]


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
