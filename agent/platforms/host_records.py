"""What the host platform put on this machine, on disk: recorded before it is done, and again when it is done.

One file for each entry, ``STATE/host/entries/KIND-NAME.json``. It is the inventory: what it does not name is not ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast

from agent import durable
from agent.durable import sync_directory
from agent.wire.canonical import canonical
from agent.wire.errors import EdgeferryError
from agent.wire.fields import Fields

FORMATS: Final = (1,)

_NAME: Final = re.compile(r"(model|workload)/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")

Phase = Literal["intended", "up", "draining", "stopping", "dead"]
PHASES: Final[tuple[Phase, ...]] = ("intended", "up", "draining", "stopping", "dead")


@dataclass(frozen=True, slots=True)
class Instance:
    """One process, or one file, of an entry.

    Attributes:
        nonce: names it for ever; it stands in the environment of the process.
        digest: entry digest.
        phase: ``intended`` before the process is started, ``up`` once it was, ``draining`` while requests end,
            ``stopping`` once it was told to, ``dead`` when it ended by itself.
        port: that its process listens on; 0 for none.
        pid, started, boot: of the process; ``started`` in clock ticks since that boot.
        ready: it answered its readiness check once.
        said: why it is dead.
        until_ms: end of the present phase, milliseconds since boot.
        target: what the stable path leads to, for ``file``.
        fingerprint: of ``target``.
    """

    nonce: str
    digest: str
    version: str
    phase: Phase = "intended"
    port: int = 0
    protocol: str = ""
    path: str = ""
    pid: int = 0
    started: int = 0
    boot: str = ""
    ready: bool = False
    said: str = ""
    until_ms: int = 0
    target: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry's things on this host.

    Attributes:
        key: ``KIND/NAME``.
        instances: oldest first.
        serving: nonce of the one that consumers reach; empty for none.
        successor: nonce of the one that takes its place once ready, with the same entry digest.
        yielding: the serving one was stopped to make way for the candidate with this entry digest.
        resend: its requests may be asked twice.
        crashes: how often the serving one was started again since the last switch.
        reached: consumers got its stable port once; it must not change any more.
        removing: it is on its way out.
        fault: why an order could not be completed; a repair clears it.
    """

    key: str
    instances: tuple[Instance, ...] = ()
    serving: str = ""
    successor: str = ""
    yielding: str = ""
    resend: bool = False
    crashes: int = 0
    reached: bool = False
    removing: bool = False
    fault: str = ""

    @property
    def kind(self) -> str:
        """``model`` or ``workload``."""
        return self.key.split("/")[0]

    @property
    def name(self) -> str:
        """Of the model or workload."""
        return self.key.split("/")[1]

    @property
    def slug(self) -> str:
        """The key as a file name."""
        return self.key.replace("/", "-", 1)

    def instance(self, nonce: str) -> Instance | None:
        """Return the instance of that nonce."""
        if nonce:
            for one in self.instances:  # asked many times a look: no generator
                if one.nonce == nonce:
                    return one
        return None

    def with_instance(self, one: Instance) -> Record:
        """Return the record with ``one`` added, or in place of the one of its nonce."""
        if self.instance(one.nonce) is None:
            return replace(self, instances=(*self.instances, one))
        return replace(self, instances=tuple(one if old.nonce == one.nonce else old for old in self.instances))

    def without(self, nonce: str) -> Record:
        """Return the record with no trace of that instance."""
        return replace(
            self,
            instances=tuple(one for one in self.instances if one.nonce != nonce),
            serving="" if self.serving == nonce else self.serving,
            successor="" if self.successor == nonce else self.successor,
        )


def is_key(key: str) -> bool:
    """Tell whether ``key`` names an entry that can stand in a file name."""
    return _NAME.match(key) is not None


class Records:
    """All records, in memory as on disk.

    Args:
        directory: ``STATE/host/entries``.
        owned: nobody else writes there: an unreadable record is set aside, and its processes count as strays.
    """

    def __init__(self, directory: Path, *, owned: bool) -> None:
        self._directory = directory
        self._records: dict[str, Record] = {}
        for path in sorted(directory.glob("*.json")) if directory.is_dir() else []:
            try:
                record = _read(path)
            except (EdgeferryError, OSError):
                if owned:
                    path.replace(path.with_suffix(".unreadable"))
                continue
            self._records[record.key] = record

    def __iter__(self) -> Iterator[Record]:
        return iter([self._records[key] for key in sorted(self._records)])

    def get(self, key: str) -> Record:
        """Return the record of ``key``, an empty one where there is none."""
        if not is_key(key):
            raise ValueError(f"not an entry: {key!r}")
        return self._records.get(key) or Record(key)

    def save(self, record: Record) -> Record:
        """Make the record durable; nothing is written when it says nothing new. Returns it."""
        if self._records.get(record.key) != record:
            self._directory.mkdir(parents=True, exist_ok=True)
            durable.write(self._path(record), canonical({"format": 1, **asdict(record)}))
            self._records[record.key] = record
        return record

    def forget(self, record: Record) -> None:
        """Nothing of the entry is here any more."""
        if self._records.pop(record.key, None) is not None:
            self._path(record).unlink(missing_ok=True)
            sync_directory(self._directory)

    def _path(self, record: Record) -> Path:
        return self._directory / f"{record.slug}.json"


def _read(path: Path) -> Record:
    top = Fields.parse(path.read_bytes(), str(path))
    top.format(FORMATS)
    return Record(
        key=top.text("key"),
        instances=top.each("instances", _read_instance),
        serving=top.text("serving"),
        successor=top.text("successor"),
        yielding=top.text("yielding"),
        resend=top.flag("resend"),
        crashes=top.integer("crashes"),
        reached=top.flag("reached"),
        removing=top.flag("removing"),
        fault=top.text("fault"),
    )


def _read_instance(item: Fields) -> Instance:
    return Instance(
        nonce=item.text("nonce"),
        digest=item.digest("digest"),
        version=item.text("version"),
        phase=cast(Phase, item.text("phase")),
        port=item.integer("port"),
        protocol=item.text("protocol"),
        path=item.text("path"),
        pid=item.integer("pid"),
        started=item.integer("started"),
        boot=item.text("boot"),
        ready=item.flag("ready"),
        said=item.text("said"),
        until_ms=item.integer("until_ms"),
        target=item.text("target"),
        fingerprint=item.text("fingerprint"),
    )
