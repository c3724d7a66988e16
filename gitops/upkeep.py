"""Keeping the fleet repository small and quick: packs are merged now and then, while it is read and written.

Never ``gc --prune=now``: a fetch that is under way may still need what is no longer referred to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gitops.git_cli import GitFailed, run_git
from gitops.publish import FleetUnwritable

MOST_PACKS: Final = 50
_GRACE: Final = "2.weeks.ago"
_TIMEOUT_S: Final = 3600.0


def merge_packs(repository: Path, most: int = MOST_PACKS) -> bool:
    """Merge the small packs of a repository once there are more than ``most``; return whether there were.

    Everything is kept: as many packs stay as their sizes differ by factors of two. Publishing may go on meanwhile.

    Raises:
        FleetUnwritable: git could not write the merged pack; the small ones stand.
    """
    if sum(1 for _ in (repository / "objects" / "pack").glob("pack-*.pack")) <= most:
        return False
    _repack(repository, "--geometric=2", "-d", "--write-midx", "--quiet")
    return True


def drop_unreferenced(repository: Path) -> None:
    """Take away what no reference has led to for two weeks: clusters' former commits; main's history stays whole.

    Costs a walk through all of the history: for a quiet hour.

    Raises:
        FleetUnwritable: git could not write the new pack; the old ones stand.
    """
    _repack(repository, "--cruft", f"--cruft-expiration={_GRACE}", "-d", "--write-midx", "--quiet")


def _repack(repository: Path, *options: str) -> None:
    try:
        run_git(repository, "repack", *options, timeout_s=_TIMEOUT_S)
    except GitFailed as error:
        raise FleetUnwritable(
            f"git repack: {error.said}", where=str(repository), do="free space; nothing is lost"
        ) from None
