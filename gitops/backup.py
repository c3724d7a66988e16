"""A hub in one file: its keys, its database, and its fleet repository where that is its own. And back.

What is not in it: model repositories, a fleet repository on a Git host, and the artifact store, which is filled again
from the model repositories; artifacts that were pushed have to be pushed again, or backed up as the directory they are.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agent.wire.errors import Stop
from gitops.keys import write_over
from gitops.pack import sync_directory
from gitops.state_dir import StateDir
from gitops.store.dump import BadDump, dump, load
from gitops.store.opening import open_database

_STORE: Final = "store.jsonl"
_BUNDLE: Final = "fleet.bundle"
_TOKEN: Final = "operator.token"  # noqa: S105  # the name of a file
_MOST_KEY_BYTES: Final = 1 << 20


class NothingToBackUp(Stop):
    """The directory is not the state of a hub."""

    code = "EF3158"


class StateNotEmpty(Stop):
    """A backup is restored into an empty state directory only: what is there might be newer."""

    code = "EF3159"


def backup(state: StateDir, database: str, out: Path) -> int:
    """Write a backup, whole or not at all, readable by its owner alone; return its size in bytes.

    A hub may run meanwhile.

    Args:
        state: of the hub.
        database: URL; empty for the file in the state directory.
        out: the file, replaced where it is there.

    Raises:
        NothingToBackUp: no keys there.
    """
    if not (state.keys / "fleet-id").exists():
        raise NothingToBackUp("no keys of a hub there", where=str(state.root), do="name the hub's directory by --state")
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with (
            os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            tarfile.open(fileobj=file, mode="w|gz") as tar,
            TemporaryDirectory(prefix="edgeferry-backup-") as work,
        ):
            for path in sorted(state.keys.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    _add(tar, f"keys/{path.name}", path.read_bytes())
            if state.operator_token.exists():
                _add(tar, _TOKEN, state.operator_token.read_bytes())
            lines = Path(work, _STORE)
            opened = open_database(database or state.database)
            try:
                with lines.open("wb") as dumped:
                    dumped.writelines(dump(opened))
            finally:
                opened.close()
            tar.add(lines, _STORE, filter=_plain)
            if (state.fleet / "HEAD").exists() and _git(state.fleet, "for-each-ref", "--count=1"):
                _git(state.fleet, "bundle", "create", "--quiet", str(Path(work, _BUNDLE)), "--all")
                tar.add(Path(work, _BUNDLE), _BUNDLE, filter=_plain)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.rename(out)
        sync_directory(out.parent)
    finally:
        beside.unlink(missing_ok=True)
    return out.stat().st_size


def restore(state: StateDir, database: str, source: Path) -> int:
    """Bring a backup into an empty state directory; return the number of rows in the database.

    The keys come last: a hub does not start on half a restore.

    Args:
        state: where to; made where absent.
        database: URL of an empty database, or one that is to be replaced; empty for a file in the state directory.
        source: the file.

    Raises:
        StateNotEmpty: something is there.
        BadDump: no backup, damaged, or by a newer version.
    """
    if any(path.exists() for path in (state.database, state.keys / "fleet-id", state.fleet)):
        raise StateNotEmpty(
            "a hub's state is there", where=str(state.root), do="give another directory, or move it away"
        )
    state.make()
    keys: dict[str, bytes] = {}
    rows = -1
    try:
        with tarfile.open(source, "r|gz") as tar, TemporaryDirectory(prefix="edgeferry-restore-") as work:
            for member in tar:
                file = tar.extractfile(member)
                if file is None:
                    raise BadDump(f"{member.name[:80]!r} is no file", where=str(source), do="use another backup")
                if member.name == _STORE:
                    opened = open_database(database or state.database)
                    try:
                        rows = load(opened, _lines(file))
                    finally:
                        opened.close()
                elif member.name == _BUNDLE:
                    bundle = Path(work, _BUNDLE)
                    with bundle.open("wb") as out:
                        while chunk := file.read(1 << 20):
                            out.write(chunk)
                    _git(None, "clone", "--quiet", "--mirror", str(bundle), str(state.fleet))
                    _git(state.fleet, "remote", "remove", "origin")
                elif member.name == _TOKEN or Path(member.name).parent == Path("keys"):
                    keys[member.name] = file.read(_MOST_KEY_BYTES)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadDump(f"unreadable: {error}", where=str(source), do="use another backup") from None
    if rows < 0 or "keys/fleet-id" not in keys:
        raise BadDump("no backup of a hub", where=str(source), do="use another backup")
    state.keys.mkdir(mode=0o700, exist_ok=True)
    for name in sorted(keys, key=lambda one: one == "keys/fleet-id"):
        write_over(state.root / name, keys[name])
    return rows


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid, member.uname, member.gname = 0o600, 0, 0, "", ""
    return member


def _lines(file: io.BufferedIOBase | object) -> Iterator[bytes]:
    yield from file  # type: ignore[misc]  # files of a tar give lines


def _git(repository: Path | None, *arguments: str) -> bytes:
    place = [] if repository is None else [f"--git-dir={repository}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *place, *arguments], env=kept, capture_output=True, check=False)
    if done.returncode:
        raise BadDump(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout
