"""Git trees by content: read once, changed along the touched paths only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Final

from gitops.pack import Kind

TREE: Final = b"40000"
BLOB: Final = b"100644"

Entries = Mapping[bytes, tuple[bytes, bytes]]
"""Name → (mode, 20-byte id)."""

Edits = dict[bytes, "Edits | tuple[bytes, bytes] | None"]
"""Name → what is to stand there, edits of the tree that stands there, or None to remove it."""

Put = Callable[[Kind, bytes], bytes]
"""Writes an object and returns its id."""

_MOST: Final = 65_536


class Trees:
    """Remembers decoded trees by their id, so that a change of one path reads and sorts only that path's trees.

    Args:
        read: returns the bytes of the tree with that id.
    """

    def __init__(self, read: Callable[[bytes], bytes]) -> None:
        self._read = read
        self._known: dict[bytes, Entries] = {}

    def entries(self, tree: bytes) -> Entries:
        """Return what a tree holds."""
        known = self._known.get(tree)
        if known is None:
            known = decode_tree(self._read(tree))
            self._remember(tree, known)
        return known

    def find(self, root: bytes, path: str) -> tuple[bytes, bytes] | None:
        """Return mode and id of what stands at ``path``; None for nothing."""
        found = (TREE, root)
        for part in filter(None, path.split("/")):
            if found[0] != TREE:
                return None
            entry = self.entries(found[1]).get(part.encode())
            if entry is None:
                return None
            found = entry
        return found

    def changed(self, tree: bytes | None, edits: Edits, put: Put) -> bytes | None:
        """Write the tree with ``edits`` in it and return its id; None where nothing is left in it.

        Args:
            tree: what stands there now; None for nothing.
            edits: what differs.
            put: writes the trees that differ.
        """
        entries = {} if tree is None else dict(self.entries(tree))
        for name, edit in edits.items():
            if isinstance(edit, dict):
                old = entries.get(name)
                below = self.changed(old[1] if old is not None and old[0] == TREE else None, edit, put)
                edit = None if below is None else (TREE, below)
            if edit is None:
                entries.pop(name, None)
            else:
                entries[name] = edit
        if not entries:
            return None
        made = put("tree", encode_tree(entries))
        if made != tree:
            if tree is not None:
                self._known.pop(tree, None)
            self._remember(made, entries)
        return made

    def forget(self) -> None:
        """Read everything again, as after the repository was restored."""
        self._known.clear()

    def _remember(self, tree: bytes, entries: Entries) -> None:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[tree] = entries


def decode_tree(data: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    """Return the entries of a tree object, in its order."""
    entries = {}
    at = 0
    while at < len(data):
        space = data.index(b" ", at)
        end = data.index(b"\0", space)
        entries[data[space + 1 : end]] = (data[at:space], data[end + 1 : end + 21])
        at = end + 21
    return entries


def encode_tree(entries: Entries) -> bytes:
    """Return the bytes of a tree object: Git sorts a directory as if its name ended with a slash."""
    lines = [(name + b"/" if mode == TREE else name, mode, name, oid) for name, (mode, oid) in entries.items()]
    lines.sort()
    return b"".join([b"%b %b\0%b" % (mode, name, oid) for _, mode, name, oid in lines])


class Layout:
    """Where the files of a directory stand in its trees: worked out once for all overlays with the same paths.

    Folders that hold the same in many overlays are written once.

    Args:
        paths: files by their index; a path that ends with a slash is a directory whose tree is given.

    Raises:
        ValueError: one path is below another.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        edits: Edits = {}
        for index, path in enumerate(paths):
            insert(edits, path.rstrip("/"), (TREE if path.endswith("/") else BLOB, index.to_bytes(4, "big")))
        self._top = _folder(edits)

    def write(self, oids: Sequence[bytes], put: Put) -> bytes:
        """Write the trees and return the topmost's id.

        Args:
            oids: ids in the order of the paths.
            put: writes a tree; the same for all calls.
        """
        return self._top.write(oids, put)


class _Folder:
    """One directory of a layout.

    Args:
        lines: what stands before an id in its tree, and the index of the id, or the folder that has it.
        indexes: of all files below.
    """

    __slots__ = ("_lines", "_made", "_pick", "indexes")

    def __init__(self, lines: list[tuple[bytes, int | _Folder]], indexes: list[int]) -> None:
        self.indexes = indexes
        self._lines = lines
        self._pick = itemgetter(*indexes)
        self._made: dict[object, bytes] = {}

    def write(self, oids: Sequence[bytes], put: Put) -> bytes:
        data = [
            line + (oids[what] if isinstance(what, int) else what.write_once(oids, put)) for line, what in self._lines
        ]
        return put("tree", b"".join(data))

    def write_once(self, oids: Sequence[bytes], put: Put) -> bytes:
        key = self._pick(oids)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self.write(oids, put)
        return made


def _folder(edits: Edits) -> _Folder:
    found: list[tuple[bytes, bytes, int | _Folder]] = []
    indexes: list[int] = []
    for name, edit in edits.items():
        assert edit is not None
        if isinstance(edit, dict):
            folder = _folder(edit)
            indexes += folder.indexes
            found.append((name + b"/", b"%b %b\0" % (TREE, name), folder))
        else:
            mode, index = edit[0], int.from_bytes(edit[1], "big")
            indexes.append(index)
            found.append((name + b"/" if mode == TREE else name, b"%b %b\0" % (mode, name), index))
    found.sort(key=lambda one: one[0])
    return _Folder([(line, what) for _, line, what in found], indexes)


def insert(edits: Edits, path: str, edit: tuple[bytes, bytes] | None) -> None:
    """Put ``edit`` at ``path``.

    Raises:
        ValueError: a file stands where ``path`` needs a directory, or the other way round.
    """
    head, _, name = path.rpartition("/")
    if head:
        for part in head.split("/"):
            below = edits.setdefault(part.encode(), {})
            if not isinstance(below, dict):
                raise ValueError(f"{path!r} is below a file")
            edits = below
    if edits.setdefault(name.encode(), edit) is not edit:
        raise ValueError(f"{path!r} is a file and a directory")


def blobs_below(trees: Trees, tree: bytes, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and id of every file below a tree, in Git's order."""
    for name, (mode, oid) in trees.entries(tree).items():
        path = f"{prefix}/{name.decode()}" if prefix else name.decode()
        if mode == TREE:
            yield from blobs_below(trees, oid, path)
        else:
            yield path, oid
