"""Git in: a branch of a model repository → its newest tree, with bytes read only where they are asked for.

A repository on this machine is read where it is; every other is mirrored. Nothing in a tree is trusted: symbolic
links, submodules and names that no file system should see are left out.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

import pygit2

from agent.wire.errors import Stop
from gitops import kinds
from gitops.git_cli import GitFailed, check_url, local_path, redacted, run_git
from gitops.lfs import LargeFileStore
from gitops.source_tree import Parts, SourceBlobs, SourceUnreadable, read_files
from gitops.tree import Tree

_SEEN: Final = "refs/edgeferry/seen/"
_KEPT: Final = "refs/edgeferry/kept/"
_ASKED: Final = "refs/edgeferry/asked"
_APPROVAL: Final = re.compile(r"^Edgeferry-Approve:[ \t]*([0-9a-f]{16})[ \t]*$", re.MULTILINE | re.IGNORECASE)
_APPROVING_S: Final = 7 * 86_400
_MOST_APPROVING: Final = 200


class NotARepository(Stop):
    """What is given as a model repository is none that can be watched."""

    code = "EF1202"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A branch as it was found.

    Attributes:
        commit: its newest commit.
        note: what people should know: that the branch was rewritten. Empty for none.
    """

    commit: str
    note: str = ""


class SourceMirror:
    """One branch of one model repository. Safe for several threads.

    Args:
        name: ``main``, or that of the Source document.
        url: a directory, or anything ``git fetch`` takes.
        cache: directory for mirrors and large files; the repository's own is below it.
        branch: that is followed; in a directory, also ``HEAD``.
        path: directory within it that is read.
        timeout_s: of a fetch.
        monotonic: clock for the pauses after a failed fetch.
    """

    def __init__(
        self,
        name: str,
        url: str,
        cache: Path,
        *,
        branch: str = "main",
        path: str = ".",
        timeout_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.url, self.branch = name, url, branch
        self.path = _directory(path)
        self.due = True
        self._timeout_s, self._monotonic = timeout_s, monotonic
        self._folder = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._local = local_path(url)
        self._lock = threading.RLock()
        self._repository: pygit2.Repository | None = None
        self._parts: Parts = {}
        self._last: tuple[str, Tree] | None = None
        self._fault: SourceUnreadable | None = None
        self._failures, self._not_before = 0, 0.0
        self.large = LargeFileStore(url, self._folder / "lfs" / "objects", timeout_s)

    def newest(self) -> Tree:
        """Return the tree of the newest commit; it is looked for only when ``due``, or when that failed before.

        After a failure the next attempts wait, longer each time, up to a minute.

        Raises:
            SourceUnreadable: the repository, or its branch, cannot be read now.
            NotARepository: it never will be.
            SourceTooLarge: the commit is too large.
        """
        with self._lock:
            if self.due or self._last is None:
                if self._fault is not None and self._monotonic() < self._not_before:
                    raise self._fault
                try:
                    fetched = self.fetch()
                except SourceUnreadable as error:
                    self._failures += 1
                    self._fault = error
                    self._not_before = self._monotonic() + min(60.0, 2.0**self._failures)
                    raise
                self._failures, self._fault, self.due = 0, None, False
                if self._last is None or self._last[0] != fetched.commit:
                    self._last = (fetched.commit, replace(self.tree(fetched.commit), note=fetched.note))
            return self._last[1]

    def look_again(self) -> None:
        """Let the next ``newest`` look at the repository, at once."""
        with self._lock:
            self.due, self._not_before = True, 0.0

    def at(self, revision: str) -> Tree:
        """Return the tree of an earlier commit; a branch that was rewritten since keeps what we used of it.

        Args:
            revision: commit, branch or tag.

        Raises:
            SourceUnreadable: the commit is not there.
        """
        with self._lock:
            repository = self._open()
            if self._local is None and _commit(repository, revision) is None:
                arguments = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--quiet")
                try:
                    asked = (*arguments, "--", self.url, f"+{revision}:{_ASKED}")
                    run_git(self._folder, "fetch", *asked, timeout_s=self._timeout_s)
                except GitFailed as error:
                    raise self._unreadable(error.said) from None
                return self.tree(_ASKED)
            return self.tree(revision)

    def fetch(self) -> Fetched:
        """Look at the repository and return the branch's newest commit.

        A rewritten branch is followed, with a note. An empty repository or a branch that is gone is a fault: nothing
        is ever deleted because a repository does not answer.

        Raises:
            SourceUnreadable: it cannot be read now, or the branch is not there.
            NotARepository: it is a folder without Git, or no URL that we follow.
        """
        with self._lock:
            if self._local is not None:
                repository = self._open()
                newest = self._branch_of(repository)
                return Fetched(
                    newest, self._rewritten(repository, None if self._last is None else self._last[0], newest)
                )
            seen = f"{_SEEN}{self.branch}"
            repository = self._open()
            before = _target(repository, seen)
            refspec = f"+refs/heads/{self.branch}:{seen}"
            try:
                arguments = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--quiet")
                run_git(self._folder, "fetch", *arguments, "--", self.url, refspec, timeout_s=self._timeout_s)
            except GitFailed as error:
                raise self._unreadable(error.said) from None
            after = _target(repository, seen)
            if after is None:
                raise self._unreadable(f"no branch {self.branch}")
            note = self._rewritten(repository, before, after)
            if note and before is not None:
                repository.references.create(f"{_KEPT}{before}", before, force=True)
            return Fetched(after, note)

    def tree(self, revision: str, path: str | None = None) -> Tree:
        """Return the tree of a commit.

        Args:
            revision: a commit id, branch or tag.
            path: directory within it; None for the source's own.

        Raises:
            SourceUnreadable: there is no such commit or directory.
            SourceTooLarge: it is too large.
        """
        with self._lock:
            repository = self._open()
            try:
                commit = _commit(repository, revision)
                if commit is None:
                    raise KeyError("no such commit")
                root: pygit2.Tree = commit.tree
                below = self.path if path is None else _directory(path)
                if below:
                    found = root[below]
                    if not isinstance(found, pygit2.Tree):
                        raise KeyError(f"{below} is no directory")
                    root = found
                files = read_files(repository.odb, self._parts, bytes(root.id.raw))
            except (KeyError, ValueError, pygit2.GitError) as error:
                raise self._unreadable(f"{revision[:60]}: {error}") from None
            if not files:
                raise self._unreadable(f"commit {revision[:12]} holds no files")
            at = datetime.fromtimestamp(commit.commit_time, UTC)
            blobs = SourceBlobs(Path(repository.path), self._lock, repository, self.large)
            known = {file.path: file for file in files}
            return Tree(self.name, str(commit.id), at, known, blobs, approvals=_approvals(repository, commit))

    def _rewritten(self, repository: pygit2.Repository, before: str | None, after: str) -> str:
        """Return the note for a branch whose newest commit does not follow from the one before."""
        if before in (None, after):
            return ""
        try:
            if repository.descendant_of(after, before):
                return ""
        except (KeyError, ValueError, pygit2.GitError):
            pass  # what was there is gone: it was rewritten, and collected since
        return f"branch {self.branch} was rewritten: {before[:12]} is not in {after[:12]}"

    def _open(self) -> pygit2.Repository:
        if self._repository is None:
            try:
                self._repository = self._open_local(self._local) if self._local is not None else self._open_mirror()
            except pygit2.GitError as error:
                raise self._unreadable(str(error)) from None
        return self._repository

    def _open_local(self, folder: Path) -> pygit2.Repository:
        if not folder.is_dir():
            raise self._unreadable("no such directory")
        folder = folder.resolve()
        found = pygit2.discover_repository(str(folder), False, str(folder.parent))
        if found is None:
            raise NotARepository(
                "a folder without a Git repository cannot be watched",
                where=str(folder),
                do="git init && git add --all && git commit, or name another folder",
            )
        return pygit2.Repository(found)

    def _open_mirror(self) -> pygit2.Repository:
        try:
            check_url(self.url)
        except ValueError as error:
            raise NotARepository(str(error), where=self.name, do="correct the URL") from None
        if not (self._folder / "HEAD").is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            pygit2.init_repository(str(self._folder), bare=True)
        return pygit2.Repository(str(self._folder))

    def _branch_of(self, repository: pygit2.Repository) -> str:
        commit = _target(repository, "HEAD" if self.branch == "HEAD" else f"refs/heads/{self.branch}")
        if commit is None:
            empty = "the repository has no commit yet" if repository.is_empty else f"no branch {self.branch}"
            raise self._unreadable(empty)
        return commit

    def _unreadable(self, what: str) -> SourceUnreadable:
        self._repository = None  # it may be another one when it is back
        do = "what it declared before stays in force; mend the repository, the URL or the credentials"
        return SourceUnreadable(redacted(what), where=f"{self.name} {redacted(self.url)}", do=do)


class Sources:
    """All model repositories of one hub: each is opened once.

    Args:
        cache: directory for their mirrors.
        url: of the first.
        branch: of the first.
        path: directory within the first.
        timeout_s: of a fetch.
    """

    def __init__(
        self, cache: Path, url: str, *, branch: str = "main", path: str = ".", timeout_s: float = 60.0
    ) -> None:
        self._cache, self._main, self._timeout_s = cache, (url, branch, path), timeout_s
        self._open: dict[tuple[str, str, str, str], SourceMirror] = {}

    def __call__(self, name: str, document: kinds.Source | None) -> SourceMirror:
        """Return a source by its name and document; None is the first."""
        spec = None if document is None else document.spec
        url, branch, path = self._main if spec is None else (spec.url, spec.branch, spec.path)
        key = (name, url, branch, path)
        if key not in self._open:
            self._open[key] = SourceMirror(name, url, self._cache, branch=branch, path=path, timeout_s=self._timeout_s)
        return self._open[key]

    def look_again(self, name: str | None = None) -> None:
        """Let the next ``newest`` of one source, or of all, look at its repository."""
        for (known, *_), mirror in list(self._open.items()):
            if name in (None, known):
                mirror.look_again()


def _approvals(repository: pygit2.Repository, newest: pygit2.Commit) -> frozenset[str]:
    """Return the hashes in ``Edgeferry-Approve:`` trailers of the newest commits, of the last week."""
    found: set[str] = set()
    for commit in islice(repository.walk(newest.id), _MOST_APPROVING):
        if newest.commit_time - commit.commit_time > _APPROVING_S:
            break
        found.update(_APPROVAL.findall(commit.message))
    return frozenset(found)


def _directory(path: str) -> str:
    return "/".join(part for part in PurePosixPath(path).parts if part not in (".", "/"))


def _commit(repository: pygit2.Repository, revision: str) -> pygit2.Commit | None:
    try:
        return repository.revparse_single(revision).peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError):
        return None


def _target(repository: pygit2.Repository, reference: str) -> str | None:
    try:
        return str(repository.references[reference].resolve().target)
    except (KeyError, pygit2.GitError, pygit2.InvalidSpecError):
        return None
