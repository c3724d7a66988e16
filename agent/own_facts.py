"""A site's own facts: ``facts.yaml`` in the state directory, or where ``agent.json`` says.

A mapping from names to numbers, words, or lists of words::

    camera.count: 4
    coolant: [water, oil]
    line.speed: 1.5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from agent.config import Config
from agent.wire.errors import EdgeferryError, Stop
from placement.fact_names import MOST_VALUE, NAME, definition

FILE: Final = "facts.yaml"
MOST_FACTS: Final = 128
_MOST_BYTES: Final = 64 << 10


class OwnFactsUnreadable(Stop):
    """The file of a site's own facts cannot be read, or is no mapping."""

    code = "EF4401"


class BadOwnFact(Stop):
    """One of a site's own facts has a name or a value that it must not have."""

    code = "EF4402"


@dataclass(slots=True)
class OwnFacts:
    """Reads the file when it changed. A faulty fact is left out, and the others count.

    Attributes:
        path: of the file.
        needed: whether it must be there: somebody named it.
        faults: what is wrong with it as it stands.
    """

    path: Path
    needed: bool = False
    faults: tuple[EdgeferryError, ...] = ()
    _stamp: tuple[int, int] | None = None
    _facts: Mapping[str, str] = field(default_factory=dict)
    _read: bool = False

    @classmethod
    def of(cls, state: Path, config: Config) -> OwnFacts:
        """Return the facts of one agent."""
        return cls(Path(config.facts) if config.facts else state / FILE, bool(config.facts))

    def changed(self) -> bool:
        """Tell whether the file is another one than was read last."""
        return not self._read or self._stamp != self._look()

    def facts(self) -> Mapping[str, str]:
        """Return name → text; empty where there is no file, or it cannot be read."""
        stamp = self._look()
        if not self._read or stamp != self._stamp:
            self._read, self._stamp = True, stamp
            try:
                self._facts, self.faults = _read(self.path, stamp is not None or self.needed)
            except OwnFactsUnreadable as fault:
                self._facts, self.faults = {}, (fault,)
        return self._facts

    def _look(self) -> tuple[int, int] | None:
        try:
            seen = self.path.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size


def _read(path: Path, there: bool) -> tuple[dict[str, str], tuple[EdgeferryError, ...]]:
    if not there:
        return {}, ()
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise OwnFactsUnreadable(
                f"larger than {_MOST_BYTES >> 10} KiB", where=str(path), do="keep only facts in it"
            )
        if b"&" in data or b"*" in data:
            raise OwnFactsUnreadable("anchors and aliases are not taken", where=str(path), do="write values out")
        found = yaml.safe_load(data)
    except OSError as error:
        raise OwnFactsUnreadable(error.strerror or str(error), where=str(path), do="mend it, or its mode") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0][:200]
        raise OwnFactsUnreadable(f"no YAML: {first}", where=str(path), do="write one `name: value` a line") from None
    if found is None:
        return {}, ()
    if not isinstance(found, dict):
        raise OwnFactsUnreadable("no mapping", where=str(path), do="write one `name: value` a line")
    facts: dict[str, str] = {}
    faults: list[EdgeferryError] = []
    for name, value in list(found.items())[:MOST_FACTS]:
        wrong, text = _checked(name, value)
        if wrong:
            faults.append(BadOwnFact(f"{str(name)[:80]!r} {wrong}", where=str(path), do="mend it; the others count"))
        else:
            facts[name] = text
    if len(found) > MOST_FACTS:
        what = f"{len(found)} facts, at most {MOST_FACTS} are taken"
        faults.append(BadOwnFact(what, where=str(path), do="take some out"))
    return facts, tuple(faults)


def _checked(name: Any, value: Any) -> tuple[str, str]:
    """Return what is wrong with a fact, or its text."""
    if not isinstance(name, str) or not NAME.match(name):
        return "is no name of a fact: write at most 63 of a-z 0-9 - _ . like camera.count", ""
    if definition(name) is not None or name.startswith("node."):
        return "is measured by the agent: a label of the cluster outranks it, no file does", ""
    values = value if isinstance(value, list) else [value]
    if not all(type(one) in (str, int, float) for one in values) or (isinstance(value, list) and not value):
        return "is no number, word, or list of words: quote it", ""
    text = ",".join(str(one) for one in values)
    if not text or len(text) > MOST_VALUE or not text.isprintable():
        return f"is empty, longer than {MOST_VALUE} characters, or not printable", ""
    return "", text
