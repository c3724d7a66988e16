"""Models of the delivery ``file`` on a node: for each a folder that pods mount whole.

    STATE/models/NAME/.<tree>/     hard links to the staged files
    STATE/models/NAME/current      leads to .<tree>, or to the one file in it

The link leads nowhere outside the folder: a pod that mounts it sees a switch at once, and no other model.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from agent.actions import Staged
from agent.durable import sync_directory
from agent.platforms.host_files import leads_to, point, unlink_ours
from agent.tree import remove

CURRENT: Final = "current"

_READABLE: Final = 0o755


def stable_path(state: Path, name: str) -> Path:
    """Return the path under which a model is found whatever its version."""
    return state / "models" / name / CURRENT


def show(state: Path, staged: Staged) -> None:
    """Have the stable path lead to what is staged; there is no moment without it. What was shown before goes.

    Raises:
        PathTaken: something that is no link stands there.
        OSError: the disk does not take it.
    """
    if shows(state, staged):
        return
    link, content = stable_path(state, staged.entry.name), staged.content
    assert content is not None
    tree = _tree(link, content)
    if not tree.exists():
        _link_tree(content, tree)
    point(link, _target(tree, staged))
    for other in link.parent.glob(".*"):
        if other != tree:
            remove(other)


def shows(state: Path, staged: Staged) -> bool:
    """Tell whether the stable path leads to what is staged."""
    if staged.content is None:
        return False
    link = stable_path(state, staged.entry.name)
    return leads_to(link, _target(_tree(link, staged.content), staged)) and link.exists()


def hide(state: Path, name: str) -> None:
    """Take the stable path away, and the folder where nothing foreign is in it."""
    link = stable_path(state, name)
    if link.is_symlink():
        link.unlink()
    for other in link.parent.glob(".*"):
        remove(other)
    unlink_ours(link)


def _tree(link: Path, content: Path) -> Path:
    return link.with_name(f".{content.name}")


def _target(tree: Path, staged: Staged) -> Path:
    if staged.model is None or staged.content is None:
        return tree
    return tree / staged.model.relative_to(staged.content)


def _link_tree(content: Path, tree: Path) -> None:
    """Make a directory with a hard link to every staged file: whole, or not there; every pod may read it."""
    beside = tree.with_name(f".new-{secrets.token_hex(4)}")
    beside.mkdir(parents=True)
    tree.parent.chmod(_READABLE)
    for here, folders, files in os.walk(content):
        to = beside / Path(here).relative_to(content)
        for name in folders:
            (to / name).mkdir()
        for name in files:
            os.link(Path(here) / name, to / name)
        to.chmod(_READABLE)
        sync_directory(to)
    beside.rename(tree)
    sync_directory(tree.parent)
