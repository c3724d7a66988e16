"""The fleet repository on a Git host: mirrored here, moved there first, with a lease.

The mirror's main moves only after the host has accepted it, so that what is served here was published there. Clusters'
branches are derived here from main's history in any case; on the host they are optional, as a push of thousands of
branches is slow, and refused by some.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.wire.errors import Retry, Stop
from gitops.fleet import FleetRepository
from gitops.fleet_history import cluster_commits
from gitops.git_cli import GitFailed, check_url, redacted, run_git
from gitops.publish import moved
from gitops.refs import CLUSTERS, MAIN, FleetUnreadable, absorb_loose, locked, move_refs

_log: Final = logging.getLogger("edgeferry.fleet")
_SEEN: Final = "refs/edgeferry/upstream"
_LOST: Final = ("stale info", "non-fast-forward", "fetch first", "cannot lock ref", "reference already exists")
_AT_ONCE: Final = 2000
_NO_BRANCH: Final = "couldn't find remote ref"


class HostRefuses(Stop):
    """The Git host does not take a publication: a protected branch, a hook, or missing rights."""

    code = "EF3008"


class HostUnreachable(Retry):
    """The Git host of the fleet repository does not answer."""

    code = "EF3009"
    delay_s = 15.0


class GitHost:
    """A fleet repository at a URL.

    Args:
        url: anything ``git push`` takes.
        cluster_refs: keep the clusters' branches on the host, too, for agents that fetch from there.
        timeout_s: of one fetch or push.
        accept: looks at a commit of main that was fetched, and raises a fault to keep the mirror where it is; None
            follows whatever is there.

    Raises:
        HostRefuses: not a URL that we follow.
    """

    def __init__(
        self,
        url: str,
        *,
        cluster_refs: bool = False,
        timeout_s: float = 120.0,
        accept: Callable[[FleetRepository, str], object] | None = None,
    ) -> None:
        try:
            self._url = check_url(url)
        except ValueError as error:
            raise HostRefuses(str(error), do="correct the URL of the fleet repository") from None
        self._cluster_refs, self._timeout_s, self._accept = cluster_refs, timeout_s, accept

    def fetch(self, repository: Path) -> str | None:
        """Bring the mirror to the host's main, with the clusters' branches that follow from it; return main's commit.

        Raises:
            HostUnreachable: the host does not answer; the mirror stands.
            FleetUnreadable: main vanished there.
            EdgeferryError: ``accept`` refused what is there; the mirror stands.
        """
        options = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--quiet", "--force")
        try:
            self._git(repository, "fetch", *options, "--", self._url, f"{MAIN}:{_SEEN}")
        except GitFailed as error:
            if _NO_BRANCH not in error.said:
                raise self._unreachable(error) from None
            head = FleetRepository.open(repository).head
            if head is not None:
                raise FleetUnreadable(
                    "main is gone there, and was there before",
                    where=redacted(self._url),
                    do=f"put it back: git --git-dir={repository} push URL {head}:{MAIN}",
                ) from None
            return None
        head = run_git(repository, "rev-parse", "--verify", f"{_SEEN}^{{commit}}").decode().strip()
        with locked(repository):
            mirror = FleetRepository.open(repository)
            before = mirror.head
            if before != head:
                if self._accept is not None:
                    self._accept(mirror, head)
                clusters = cluster_commits(mirror, before, head)
                refs = absorb_loose(repository, mirror.refs)
                present = {name.removeprefix(CLUSTERS) for name in refs.values if name.startswith(CLUSTERS)}
                standing = {name for name, _ in mirror.clusters(head)}
                moves: dict[str, str | None] = {CLUSTERS + name: one for name, one in clusters.items()}
                moves |= dict.fromkeys((CLUSTERS + name for name in present - standing), None)
                move_refs(repository, refs, {MAIN: head, **moves})
        return head

    def push(self, repository: Path, head: str, expected: str | None, clusters: Mapping[str, str | None]) -> None:
        """Move main from ``expected`` to ``head`` on the host, then the clusters' branches.

        Raises:
            FleetMoved: main is elsewhere there.
            HostRefuses: the host does not take it.
            HostUnreachable: the host does not answer; the next fetch finds out whether it took it.
        """
        lease = f"--force-with-lease={MAIN}:{expected or ''}"
        try:
            self._git(repository, "push", lease, "--", self._url, f"{head}:{MAIN}")
        except GitFailed as error:
            raise self._push_fault(repository, error, expected) from None
        if self._cluster_refs:
            self._push_clusters(repository, clusters)

    def _push_clusters(self, repository: Path, clusters: Mapping[str, str | None]) -> None:
        """Main has moved: a branch that cannot be moved now is moved with the cluster's next overlay, or by hand."""
        for part in _parts([f"+{commit or ''}:{CLUSTERS}{name}" for name, commit in clusters.items()]):
            try:
                self._git(repository, "push", "--", self._url, *part)
            except GitFailed as error:
                _log.warning(
                    "%s: main is published, but %d branches of clusters are not: %s; let the publisher's account "
                    "force-push refs/heads/cluster/*, or leave the clusters' branches out",
                    *(redacted(self._url), len(part), error.said[-300:]),
                )

    def _push_fault(self, repository: Path, error: GitFailed, expected: str | None) -> Retry | Stop:
        if any(sign in error.said for sign in _LOST):
            try:
                shown = self._git(repository, "ls-remote", "--", self._url, MAIN).decode().split()
            except GitFailed as unreachable:
                return self._unreachable(unreachable)
            there = shown[0] if shown else None
            if there != expected:
                return moved(there, expected, redacted(self._url))
        if "rejected" in error.said or "declined" in error.said:
            return HostRefuses(
                f"push refused: {error.said[-300:]}",
                where=redacted(self._url),
                do="let the publisher's account push to main of the fleet repository",
            )
        return self._unreachable(error)

    def _git(self, repository: Path, *arguments: str) -> bytes:
        return run_git(repository, *arguments, timeout_s=self._timeout_s)

    def _unreachable(self, error: GitFailed) -> HostUnreachable:
        do = "check the URL, the network and the credentials; what is published stands"
        return HostUnreachable(error.said[-300:], where=redacted(self._url), do=do)


def _parts(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
