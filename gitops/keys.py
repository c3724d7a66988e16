"""The publisher's keys: one directory, made once, readable by its user alone.

``release.key`` and ``root.key`` are OpenSSH private keys, ``fleet-id`` names the fleet, ``trust.pin`` is the newest
trust that this publisher has seen, with its signatures: nothing older is accepted again. The root key signs trust
documents only, and can be taken offline once the first is published.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agent.wire.errors import Malformed, Stop
from agent.wire.model_signature import read_model_key
from agent.wire.signature import SigningKey
from agent.wire.trust import Trust, paths, pin, sign_trust
from gitops.pack import sync_directory

_FLEET_ID: Final = re.compile(r"[0-9a-z][-0-9a-z]{7,63}\Z")


RELEASE: Final = "release.key"
ROOT: Final = "root.key"
NEXT_RELEASE: Final = "release.key.next"
"""Made by a rotation; in use once the trust that names it is published."""


class KeyMissing(Stop):
    """A key that is needed is not in the keys directory."""

    code = "EF3006"


class KeyExposed(Stop):
    """A private key can be read by every user of the machine."""

    code = "EF3007"


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys of one fleet's publisher.

    Attributes:
        directory: where they are kept.
        release: signs releases and fleet commits.
        root: signs trust documents; None where the administrator has taken it offline.
        fleet_id: id of the fleet.
    """

    directory: Path
    release: SigningKey
    root: SigningKey | None
    fleet_id: str

    @classmethod
    def open(cls, directory: Path, *, create: bool = False) -> Self:
        """Read the keys.

        Args:
            directory: with ``release.key``, ``fleet-id`` and perhaps ``root.key``.
            create: make what is missing, where no fleet id is there yet; keys that are there already are taken.

        Raises:
            KeyMissing: a file is missing, and may not be made.
            KeyExposed: a key is readable by everybody.
            Malformed: a file is no OpenSSH ed25519 key, or no fleet id.
        """
        if create and not (directory / "fleet-id").exists():
            directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            for name in ("root.key", "release.key"):
                if not (directory / name).exists():
                    write_new(directory / name, SigningKey.generate().dump())
            write_new(directory / "fleet-id", f"{secrets.token_hex(8)}\n".encode())  # last: it says that all are there
        release = read_key(directory / "release.key")
        try:
            fleet = (directory / "fleet-id").read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            raise KeyMissing("no fleet-id", where=str(directory), do=_BACK) from None
        if release is None:
            raise KeyMissing("no release.key", where=str(directory), do=_BACK)
        if not _FLEET_ID.match(fleet):
            raise Malformed(f"not a fleet id: {fleet[:80]!r}", where=str(directory / "fleet-id"), do=_BACK)
        return cls(directory, release, read_key(directory / "root.key"), fleet)

    def release_key(self, trust: Trust) -> SigningKey | None:
        """Return the key by which this publisher signs under a trust; None where it has none that the trust names.

        A key that a rotation made takes its place for good once the trust that names it is in force. The directory is
        read again: a rotation may have been another process.
        """
        upcoming = read_key(self.directory / NEXT_RELEASE)
        if upcoming is not None and upcoming.public in trust.release_keys:
            take_place(self.directory / NEXT_RELEASE, self.directory / RELEASE)
            return upcoming
        found = (self.release, read_key(self.directory / RELEASE))
        return next((one for one in found if one is not None and one.public in trust.release_keys), None)

    def model_keys(self) -> tuple[str, ...]:
        """Return the keys that sign models from the first trust on: one a line in ``model-keys``, or none.

        Raises:
            Malformed: a line is no public key that signs models.
        """
        path = self.directory / "model-keys"
        if not path.exists():
            return ()
        lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        return tuple(read_model_key(line.encode(), str(path)) for line in lines if line and not line.startswith("#"))

    def pinned(self) -> Trust | None:
        """Return the newest trust that this publisher has seen; None before the first.

        Raises:
            Malformed: it is unreadable.
            BadSignature: it was changed.
        """
        path = self.directory / "trust.pin"
        try:
            line, newline, marks = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return pin(line + newline, marks, str(path))

    def pin(self, document: bytes, signatures: bytes) -> None:
        """Remember a trust document that was verified.

        A directory that may not be written, as a CI job's secrets are mounted, keeps what it has.

        Raises:
            OSError: the disk is full.
        """
        path = self.directory / "trust.pin"
        data = document + signatures
        if path.exists() and path.read_bytes() == data:
            return
        try:
            beside = _write_beside(path, data)
            beside.rename(path)
            sync_directory(self.directory)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise


_BACK: Final = "restore the keys directory from its backup; without the root key every site has to join again"


def first_trust(keyring: Keyring, model_keys: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return path → bytes of trust 1 and its signatures, as they are published.

    Args:
        keyring: with the root key.
        model_keys: OpenSSH public keys of those who sign models.

    Raises:
        KeyMissing: the root key is not here.
    """
    if keyring.root is None:
        raise KeyMissing(
            "no root.key: it signs the first trust document",
            where=str(keyring.directory),
            do="bring it here for the first publication",
        )
    trust = Trust(keyring.fleet_id, 1, (keyring.root.public,), (keyring.release.public,), model_keys)
    return dict(zip(paths(1), sign_trust(trust, (keyring.root,)), strict=True))


def write_new(path: Path, data: bytes) -> None:
    """Write a secret, durably; one that another process made meanwhile stays."""
    beside = _write_beside(path, data)
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(beside)
    beside.unlink()
    sync_directory(path.parent)


def write_over(path: Path, data: bytes) -> None:
    """Write a secret in place of what stands there, durably."""
    _write_beside(path, data).rename(path)
    sync_directory(path.parent)


def _write_beside(path: Path, data: bytes) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside


def check_not_exposed(path: Path) -> None:
    """Refuse a private key that every user of the machine can read.

    Raises:
        KeyExposed: it can be; or FileNotFoundError.
    """
    mode = path.stat().st_mode
    if mode & 0o007:
        raise KeyExposed(f"mode is {mode & 0o777:o}: everybody can use the key", where=str(path), do="chmod 600 it")


def take_place(upcoming: Path, key: Path) -> None:
    """Put a new key in the place of the old one, durably; a directory that may not be written keeps both."""
    try:
        upcoming.rename(key)
        sync_directory(key.parent)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOENT):
            raise


def read_key(path: Path) -> SigningKey | None:
    """Return the private key in a file; None where there is no file.

    Raises:
        KeyExposed: everybody can read it.
        Malformed: no OpenSSH ed25519 key.
    """
    try:
        check_not_exposed(path)
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return SigningKey.load(data, str(path))
