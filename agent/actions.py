"""What the agent's plan is made of: the actions, what a platform observes, and what a platform must do.

An action is frozen data. The real executors and the printing one take the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from agent.wire.errors import Wait
from agent.wire.release import Entry
from agent.wire.report import Health


@dataclass(frozen=True, slots=True)
class Staged:
    """An entry whose bytes are all at the site, verified.

    Attributes:
        entry: as the release has it.
        files: path within the overlay → bytes, of this entry's directory only.
        content: directory with the unpacked artifact, read-only; None where the entry has none.
        model: the one file in ``content``, or ``content`` itself where there are several; None as above.
        verified: fingerprint of ``model`` when its bytes were read and found right; empty where only sizes were
            compared.
        note: how its bytes came, for people; empty where there is nothing to say.
        chart: directory with the unpacked chart, read-only; None where the entry is no chart.
    """

    entry: Entry
    files: Mapping[str, bytes] = field(default_factory=dict)
    content: Path | None = None
    model: Path | None = None
    verified: str = field(default="", compare=False)
    note: str = field(default="", compare=False)
    chart: Path | None = None

    @property
    def digest(self) -> str:
        """The entry digest."""
        return self.entry.digest


class ContentChanged(Wait):
    """The bytes of a delivered file are not known to be those that were staged, or are gone: they are read again."""

    code = "EF4110"

    def __init__(self, what: str, staged: Staged, *, where: str) -> None:
        super().__init__(what, where=where, do="nothing: it is staged again, once its source can be reached")
        self.entry = staged.entry


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """Where a consumer finds one model now: what ``edgeferry-models`` holds."""

    name: str
    version: str
    url: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """Bring the entry's bytes to the site, verified. Executed by agent/stage.py, on every platform."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Start:
    """Bring the entry up beside what serves, without giving it any request. Nothing to do where the platform cannot."""

    staged: Staged
    points: tuple[ModelPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Test:
    """Ask the self-test's question of the started entry; raises SelfTestFailed."""

    staged: Staged


@dataclass(frozen=True, slots=True)
class Switch:
    """Put the entry into service in place of ``previous``, which stays startable."""

    staged: Staged
    previous: Staged | None
    points: tuple[ModelPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Retire:
    """Stop an entry that no longer serves (a replaced one after its drain, or a failed candidate). Its bytes stay."""

    staged: Staged


@dataclass(frozen=True, slots=True)
class Repair:
    """What serves is not as it should be (died, deleted, changed by others): put it right."""

    staged: Staged
    why: str
    points: tuple[ModelPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Remove:
    """Everything of this entry that the inventory says is ours goes, in reverse order of creation."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the consumers where the models are: ConfigMap ``edgeferry-models``, or the models file of a host."""

    namespace: str
    points: tuple[ModelPoint, ...]


@dataclass(frozen=True, slots=True)
class Refresh:
    """A model that this workload uses was switched: restart it, or have it reload."""

    staged: Staged
    how: Literal["restart", "reload"]
    points: tuple[ModelPoint, ...]


Action = Stage | Start | Test | Switch | Retire | Repair | Remove | Announce | Refresh


@dataclass(frozen=True, slots=True)
class Seen:
    """What a platform sees of one entry that it knows of.

    Attributes:
        digest: entry digest of this instance.
        serving: it is the one that consumers reach.
        health: ``current`` when it is up and answers its readiness check; ``degraded`` when it cannot get there
            by itself (exited, crash loop, failed object); ``progressing`` while it starts.
        drift: what is not as applied; empty for nothing.
        url: stable address for consumers; empty for none.
        path: stable path for consumers (``file`` delivery); empty for none.
        message: one sentence when not current.
    """

    kind: str
    name: str
    digest: str
    serving: bool
    health: Health
    drift: str = ""
    url: str = ""
    path: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything of ours that the platform has now, started and serving, entries in any order."""

    seen: tuple[Seen, ...] = ()
    announced: Mapping[str, tuple[ModelPoint, ...]] = field(default_factory=dict)


class Platform(Protocol):
    """Executes plans on one kind of target. Every action is idempotent: it may have been half done before."""

    name: str

    def refuses(self, entry: Entry) -> str:
        """Return why this platform cannot do the entry, or an empty string."""

    def observe(self, known: Sequence[Staged]) -> Observed:
        """Look at the target.

        Args:
            known: every entry that may be there: running, previous, and being brought up.
        """

    def execute(self, action: Action) -> None:
        """Do one action (never ``Stage``); return when its intent is recorded and done, not when it is healthy.

        Raises:
            ContentChanged: the staged bytes are to be read again.
            Retry, Wait, Stop: as agent/wire/errors.py says.
        """

    def facts(self) -> Mapping[str, str]:
        """Return ``arch``, ``os``, ``platform`` and what else is cheap to know."""

    def close(self) -> None:
        """Let go of connections; what serves goes on."""


@runtime_checkable
class Onlooker(Protocol):
    """What a platform offers besides where its ``observe`` also puts things in step."""

    def look(self, known: Sequence[Staged]) -> Observed:
        """As ``Platform.observe``, and nothing is changed: for ``edgeferry-agent plan``."""


@runtime_checkable
class Herald(Protocol):
    """What a platform offers besides where it hears of changes by itself."""

    def listen(self, wake: Callable[[], None]) -> None:
        """Call ``wake``, from any thread, whenever another look is worth while; until ``close``."""
