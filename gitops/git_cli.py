"""Running git against other people's repositories: it never asks, never hangs, and speaks only protocols we know."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import git

PROTOCOLS: Final = "file:git:http:https:ssh"

_SECRET: Final = re.compile(r"(?<=://)[^/@\s]+@")
_LOCAL: Final = re.compile(r"(?!\w[-+.\w]*::)(?![^/]*:).+", re.DOTALL)
_LINES: Final = 6


class GitFailed(Exception):
    """git ended with an error. Callers turn it into a fault of theirs.

    Attributes:
        said: last lines of what it printed, without secrets.
    """

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


def run_git(repository: Path, *arguments: str, timeout_s: float = 60.0) -> bytes:
    """Run git on a bare repository and return what it printed.

    Args:
        repository: its Git directory.
        arguments: command and options; URLs among them were checked by ``check_url``.
        timeout_s: after so long it is killed, with what it started.

    Raises:
        GitFailed: it failed, was killed, or is not installed.
    """
    environment = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15"),
        "LC_ALL": "C",
    }
    options = ("core.hooksPath=/dev/null", "gc.auto=0", "http.lowSpeedLimit=1000", "http.lowSpeedTime=30")
    command = ["git", f"--git-dir={repository}", *(part for option in options for part in ("-c", option)), *arguments]
    try:
        status, out, said = git.Git(repository).execute(
            command,
            env=environment,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            kill_after_timeout=timeout_s,
        )
    except (git.GitCommandNotFound, OSError) as error:
        raise GitFailed(f"git cannot be run: {error}") from None
    if status:
        text = said if isinstance(said, str) else said.decode(errors="replace")
        lines = [line.strip() for line in redacted(text).splitlines() if line.strip() and not line.startswith("hint:")]
        raise GitFailed(" | ".join(lines[-_LINES:]) or f"git ended with {status}")
    assert isinstance(out, bytes)
    return out


def check_url(url: str) -> str:
    """Return a URL that may be handed to git.

    Raises:
        ValueError: it is an option, or runs a command.
    """
    if url.startswith("-") or not url.isprintable():
        raise ValueError(f"not a URL: {redacted(url)!r}")
    scheme, separator, _ = url.partition("://")
    if "::" in url.split("/", 1)[0] or (separator and scheme not in PROTOCOLS.split(":")):
        raise ValueError(f"the protocol of {redacted(url)!r} is not one of {PROTOCOLS.replace(':', ', ')}")
    return url


def local_path(url: str) -> Path | None:
    """Return the directory that ``url`` names on this machine; None for anything that git fetches from."""
    return Path(url) if _LOCAL.fullmatch(url) else None


def redacted(text: str) -> str:
    """Return the text without user names and passwords of URLs in it."""
    return _SECRET.sub("", text)
