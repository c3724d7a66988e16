"""Overlays from Git, with the git CLI: a cluster's own branch, or a branch of the whole fleet repository.

Nothing is checked out: the tree is read object by object, so that links, submodules and special files never
come into being. The repository kept here is a cache; a damaged one is made again.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from agent.config import BadConfig, Config
from agent.fetch import CredentialRefused, NothingPublished, Received
from agent.fetch_folder import fleet_path
from agent.git import Git, GitEnded, GitFailed, checked_url
from agent.proof import Proof
from agent.wire.errors import Retry, Stop
from agent.wire.overlay import Limits, OverlayRefused, check_path
from agent.wire.release import NAME

_REF: Final = "refs/remotes/origin/overlay"
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
_REF_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9._/-]{1,200}\Z")
_TREE_LINE: Final = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]{40,64}) +(\d+|-)\t(.+)\Z", re.DOTALL)


class GitTransport:
    """Fetches one ref, and reads this cluster's directory of it when that changed.

    Args:
        config: ``git``, ``git_ref``, ``cluster``, ``ca`` and ``hub`` of it.
        proof: of this cluster. It is shown to the host of ``hub`` alone, or of ``git`` where there is no hub.
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
        self._limits = limits
        self._refused = ""
        self._command = Git(self._url, config, proof, repository.parent, 2 * limits.total_bytes)
        self._woken = self._command.interrupted

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
        self._command.interrupt()

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
        try:
            return self._command.run(self._repository if inside else None, *arguments, stdin=stdin)
        except GitEnded as ended:
            raise self._fault(arguments[0], ended.said) from None

    def _fault(self, command: str, text: str) -> Retry:
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
