"""``git upload-pack`` for a repository of one ref: protocol versions 0, 1 and 2, without a process.

A request is answered from two commits at most, the cluster's current and previous overlay. Every other object id
is refused, whether the fleet repository has it or not: stock upload-pack would give any object to anybody.
The commits have no parents, so a shallow clone is a complete one.

Source: gitprotocol-v2 and gitprotocol-pack of Git.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.wire.errors import Stop
from gitops.serve.faults import BadRequest
from gitops.serve.git_pack import DELIMITER, FLUSH, Mark, banded, packet, packets, write_pack
from gitops.serve.overlays import GitObject

MAIN: Final = b"refs/heads/main"
_AGENT: Final = b"agent=edgeferry"
_OID: Final = re.compile(rb"[0-9a-f]{40}\Z")
_V0: Final = (
    b"multi_ack_detailed side-band side-band-64k thin-pack ofs-delta shallow no-progress include-tag"
    b" symref=HEAD:%b object-format=sha1 %b" % (MAIN, _AGENT)
)
_IGNORED: Final = {b"thin-pack", b"no-progress", b"include-tag", b"ofs-delta"}

Closure = Callable[[str], Sequence[GitObject]]
"""Commit → all its objects, itself first."""


class GitRefused(Stop):
    """A Git client asks for what this repository does not have or does not do."""

    code = "EF3113"


@dataclass(frozen=True, slots=True)
class Repository:
    """The virtual repository of one cluster.

    Attributes:
        cluster: its name.
        commits: that may be fetched, current first; none before the first publication.
        closure: gives their objects; asked for no other commit.
    """

    cluster: str
    commits: tuple[str, ...]
    closure: Closure

    def refs(self) -> list[tuple[bytes, bytes]]:
        """Return name and id of every ref, in the order in which Git lists them."""
        if not self.commits:
            return []
        oid = self.commits[0].encode()
        return [(b"HEAD", oid), (b"refs/heads/cluster/" + self.cluster.encode(), oid), (MAIN, oid)]


@dataclass(slots=True)
class _Wish:
    """What a client asked for while its lines are read."""

    want: list[str] = field(default_factory=list)
    have: list[str] = field(default_factory=list)
    capabilities: frozenset[bytes] = frozenset()
    done: bool = False
    deepen: bool = False


def advertise(repository: Repository, version: int) -> bytes:
    """Return the answer to ``GET info/refs?service=git-upload-pack``."""
    service = packet(b"# service=git-upload-pack\n") + FLUSH
    if version == 2:
        lines = (b"version 2", _AGENT, b"ls-refs", b"fetch=shallow", b"object-format=sha1")
        return service + b"".join(packet(line + b"\n") for line in lines) + FLUSH
    refs = repository.refs() or [(b"capabilities^{}", b"0" * 40)]
    lines_v0 = [b"%b %b" % (oid, name) for name, oid in refs]
    lines_v0[0] += b"\0" + _V0
    first = packet(b"version 1\n") if version == 1 else b""
    return service + first + b"".join(packet(line + b"\n") for line in lines_v0) + FLUSH


def answer(repository: Repository, version: int, body: bytes) -> bytes:
    """Return the answer to ``POST git-upload-pack``; a refusal is an ``ERR`` line, as Git shows it.

    Raises:
        BadRequest: the body is not made of packet lines.
    """
    lines = packets(body)
    try:
        return _answer_v2(repository, lines) if version == 2 else _answer_v0(repository, lines)
    except GitRefused as refused:
        return packet(b"ERR " + str(refused).encode() + b"\n")


def _answer_v2(repository: Repository, lines: Sequence[bytes | Mark]) -> bytes:
    if not lines or not isinstance(lines[0], bytes):
        return b""
    delimiter = lines.index(1) if 1 in lines else len(lines)
    arguments = [line for line in lines[delimiter:] if isinstance(line, bytes)]
    if b"object-format=sha256" in lines[:delimiter]:
        raise GitRefused("this repository has SHA-1 ids", do="use a client with object-format sha1")
    match lines[0]:
        case b"command=ls-refs":
            return _list_refs(repository, arguments)
        case b"command=fetch":
            return _fetch(repository, arguments)
    raise GitRefused(f"{lines[0][:80]!r} is not served here", do="fetch with `git fetch`")


def _list_refs(repository: Repository, arguments: Sequence[bytes]) -> bytes:
    prefixes = tuple(one.removeprefix(b"ref-prefix ") for one in arguments if one.startswith(b"ref-prefix "))
    symrefs = b"symrefs" in arguments
    out = b""
    for name, oid in repository.refs():
        if not prefixes or name.startswith(prefixes):
            target = b" symref-target:" + MAIN if symrefs and name == b"HEAD" else b""
            out += packet(b"%b %b%b\n" % (oid, name, target))
    return out + FLUSH


def _fetch(repository: Repository, arguments: Sequence[bytes]) -> bytes:
    wish = _Wish()
    for line in arguments:
        if line not in _IGNORED:
            _read_line(wish, line)
    _check_wants(repository, wish)
    common = _common(repository, wish)
    out = b""
    if not wish.done:
        out += packet(b"acknowledgments\n")
        out += b"".join(packet(b"ACK %b\n" % oid.encode()) for oid in common) or packet(b"NAK\n")
        if not common:
            return out + FLUSH
        out += packet(b"ready\n") + DELIMITER
    if wish.deepen:
        out += packet(b"shallow-info\n") + DELIMITER
    pack = write_pack(_missing(repository, wish.want, common))
    return out + packet(b"packfile\n") + b"".join(banded(pack)) + FLUSH


def _answer_v0(repository: Repository, lines: Sequence[bytes | Mark]) -> bytes:
    wish = _Wish()
    for line in lines:
        if isinstance(line, bytes):
            if line.startswith(b"want ") and not wish.want:
                wish.capabilities = frozenset(line[45:].split())
                line = line[:45]
            _read_line(wish, line)
    if not wish.want:
        return b""
    _check_wants(repository, wish)
    common = _common(repository, wish)
    out = FLUSH if wish.deepen else b""
    if not wish.done:
        if wish.deepen and not wish.have:
            return out
        if b"multi_ack_detailed" in wish.capabilities:
            out += b"".join(packet(b"ACK %b common\n" % oid.encode()) for oid in common)
            if common:
                out += packet(b"ACK %b ready\n" % common[-1].encode())
            return out + packet(b"NAK\n")
        return out + (packet(b"ACK %b\n" % common[0].encode()) if common else packet(b"NAK\n"))
    out += packet(b"ACK %b\n" % common[-1].encode()) if common else packet(b"NAK\n")
    pack = write_pack(_missing(repository, wish.want, common))
    if b"side-band-64k" in wish.capabilities:
        return out + b"".join(banded(pack)) + FLUSH
    if b"side-band" in wish.capabilities:
        return out + b"".join(banded(pack, small=True)) + FLUSH
    return out + pack


def _read_line(wish: _Wish, line: bytes) -> None:
    word, _, rest = line.partition(b" ")
    match word:
        case b"want":
            wish.want.append(_oid(rest))
        case b"have":
            wish.have.append(_oid(rest))
        case b"done":
            wish.done = True
        case b"shallow":
            _oid(rest)  # our commits have no parents: nothing of ours is shallow, whatever else the client has
        case b"deepen":
            if not rest.isdigit():
                raise BadRequest("deepen without a depth")
            wish.deepen = int(rest) > 0
        case b"deepen-relative":
            pass
        case _:
            raise GitRefused(
                f"{line[:80].decode(errors='replace')!r} is not done here", do="fetch without filters and exclusions"
            )


def _oid(text: bytes) -> str:
    if not _OID.match(text):
        raise BadRequest("not an object id")
    return text.decode()


def _check_wants(repository: Repository, wish: _Wish) -> None:
    for oid in wish.want:
        if oid not in repository.commits:
            raise GitRefused(
                f"{oid} is not an overlay of {repository.cluster}", do="fetch again: it may have moved meanwhile"
            )


def _common(repository: Repository, wish: _Wish) -> list[str]:
    asked = set(wish.have)
    return [oid for oid in repository.commits if oid in asked]


def _missing(repository: Repository, want: Iterable[str], have: Iterable[str]) -> list[GitObject]:
    there = {one.oid for commit in have for one in repository.closure(commit)}
    missing: dict[str, GitObject] = {}
    for commit in dict.fromkeys(want):
        for one in repository.closure(commit):
            if one.oid not in there:
                missing.setdefault(one.oid, one)
    return list(missing.values())
