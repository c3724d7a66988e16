"""Which manifests a repository holds, and by which tags: ``index.json`` of an OCI image layout, one a repository.

Besides what the layout says, an entry notes the manifest's ``subject``, so that referrers are found without reading
every manifest.

Source: OCI image layout 1.1.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agent.wire.canonical import canonical
from agent.wire.errors import Stop
from gitops.oci_manifest import OCI_INDEX

LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}\n'
EMPTY_INDEX: Final = canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})

_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_RESERVED: Final = {"index.json", "oci-layout"}
_TAG: Final = "org.opencontainers.image.ref.name"
_SUBJECT: Final = "dev.edgeferry.subject"


class BadRepository(Stop):
    """The name of a repository is not one."""

    code = "EF2181"


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """One manifest under one name.

    Attributes:
        tag: empty where it is listed by its digest alone.
        subject: digest of the manifest that it refers to; empty for none.
    """

    digest: str
    tag: str
    media_type: str
    size_bytes: int
    subject: str = ""


@dataclass(frozen=True, slots=True)
class RepositoryIndex:
    """The indexes of all repositories below one directory. Safe for several threads and processes at once.

    Attributes:
        root: with a directory for each repository.
        write: replaces a file so that a power cut leaves the old one or the new one.
    """

    root: Path
    write: Callable[[Path, bytes], None]

    def entries(self, repository: str) -> list[Listed]:
        """Return what a repository holds, by digest and tag; nothing where there is none of that name.

        Raises:
            BadRepository: not the name of a repository.
        """
        return _read(self.directory(repository) / "index.json")

    def names(self) -> list[str]:
        """Return the names of all repositories that hold something."""
        found = (path.parent for path in self.root.rglob("index.json"))
        return sorted(str(path.relative_to(self.root)) for path in found if _read(path / "index.json"))

    def add(self, repository: str, one: Listed) -> None:
        """List a manifest; a tag that it bears is taken from the manifest that bore it."""
        with self._changing(repository) as held:
            if one.tag:
                self._untag(held, one.tag, one.digest)
                held.pop((one.digest, ""), None)  # its tag names it now
            if one.tag or all(digest != one.digest for digest, _ in held):
                held[one.digest, one.tag] = one

    def remove(self, repository: str, *, digest: str = "", tag: str = "") -> list[Listed]:
        """Take away a manifest with all its tags, or one tag alone; return what was taken away."""
        with self._changing(repository) as held:
            if tag:
                return self._untag(held, tag)
            gone = [one for one in held.values() if one.digest == digest]
            for one in gone:
                del held[one.digest, one.tag]
            return gone

    @staticmethod
    def _untag(held: dict[tuple[str, str], Listed], tag: str, soon: str = "") -> list[Listed]:
        """Take away a tag; its manifest stays, by its digest, unless it is ``soon`` listed again."""
        gone = [one for one in held.values() if one.tag == tag]
        for one in gone:
            del held[one.digest, one.tag]
            if one.digest != soon and all(digest != one.digest for digest, _ in held):
                held[one.digest, ""] = replace(one, tag="")
        return gone

    def directory(self, repository: str) -> Path:
        """Return where a repository stands, or would.

        Raises:
            BadRepository: not the name of a repository.
        """
        if len(repository) > 255 or not _REPOSITORY.match(repository) or _RESERVED & {*repository.split("/")}:
            raise BadRepository(f"{repository[:80]!r} is not the name of a repository", do="use a-z 0-9 . _ - and /")
        return self.root / repository

    @contextmanager
    def _changing(self, repository: str) -> Iterator[dict[tuple[str, str], Listed]]:
        directory = self.directory(repository)
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (directory / "oci-layout").exists():
                self.write(directory / "oci-layout", LAYOUT)
            held = {(one.digest, one.tag): one for one in _read(directory / "index.json")}
            before = dict(held)
            yield held
            if held != before:
                manifests = [_encode(held[key]) for key in sorted(held)]
                index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
                self.write(directory / "index.json", canonical(index))


def _read(path: Path) -> list[Listed]:
    try:
        listed = json.loads(path.read_bytes())["manifests"]
    except FileNotFoundError:
        return []
    return [_decode(one) for one in listed]


def _decode(one: dict[str, Any]) -> Listed:
    notes = one.get("annotations", {})
    return Listed(one["digest"], notes.get(_TAG, ""), one["mediaType"], one["size"], notes.get(_SUBJECT, ""))


def _encode(one: Listed) -> dict[str, Any]:
    notes = {name: value for name, value in ((_TAG, one.tag), (_SUBJECT, one.subject)) if value}
    plain = {"mediaType": one.media_type, "digest": one.digest, "size": one.size_bytes}
    return plain | ({"annotations": notes} if notes else {})
