"""Needs of a version's variants → which clusters have room for which of them, and what the others lack. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from placement.facts import shown_bytes
from placement.index import ARCH, FleetIndex
from placement.room import Room, amounts
from placement.selector import known, passing
from placement.types import FactTest, Needs, Variant

Lack = tuple[str, str, int]
"""Code of a refusal, what is lacking, for which clusters."""

_BYTES: Final = frozenset({"memory", "disk"})


@dataclass(frozen=True, slots=True)
class Fitted:
    """Which clusters get which variant.

    Attributes:
        variants: name → bits, disjoint.
        lacks: what keeps the others out.
    """

    variants: Mapping[str, int]
    lacks: tuple[Lack, ...]


def fit(
    forms: tuple[Variant, ...], index: FleetIndex, room: Room, asked: int, incumbents: int, sticky: Mapping[str, int]
) -> Fitted:
    """Give every cluster the first variant that it has room for.

    An incumbent keeps the variant that it has; where it has none yet it gets one in any case, the last for want of a
    better one: only an architecture that is known, and on which the variant cannot run, refuses it.

    Args:
        forms: variants of the version, the best first.
        room: what is promised to others.
        asked: bits of the clusters that passed everything else.
        incumbents: bits of those chosen before.
        sticky: variant → bits of the incumbents that have it, of this version.
    """
    variants: dict[str, int] = {}
    lacks: list[Lack] = []
    first_wrong: list[Lack] = []
    kept = asked & incumbents
    for form in forms:
        has = kept & (sticky.get(form.name, 0) if len(forms) > 1 else kept)
        wrong = list(_other_arch(form.needs, index, has))
        has &= ~_together(wrong)
        variants[form.name] = has
        kept &= ~has
    for form in forms if len(forms) > 1 else ():
        has = kept & ~_together(lacking(form.needs, index, room, kept))
        variants[form.name] |= has
        kept &= ~has
    for form in reversed(forms):
        wrong = list(_other_arch(form.needs, index, kept))
        variants[form.name] |= kept & ~_together(wrong)
        kept &= ~variants[form.name]
        if form is forms[-1]:
            first_wrong = wrong
    lacks += [(code, text, bits & kept) for code, text, bits in first_wrong if bits & kept]
    new = asked & ~incumbents
    for form in forms:
        lacks_here = list(lacking(form.needs, index, room, new))
        has = new & ~_together(lacks_here)
        variants[form.name] |= has
        new &= ~has
        if form is forms[-1]:
            prefix = f"variant {form.name}: " if len(forms) > 1 and form.name else ""
            lacks += [(code, prefix + text, bits) for code, text, bits in lacks_here]
    return Fitted(variants, tuple(_merged(lacks)))


def lacking(needs: Needs, index: FleetIndex, room: Room, asked: int) -> Iterator[Lack]:
    """Yield what keeps clusters from having room, each cluster once at most."""
    for code, text, bits in _checks(needs, index, room):
        found = asked & bits
        if found:
            yield code, text, found
            asked &= ~found
        if not asked:
            return


def _checks(needs: Needs, index: FleetIndex, room: Room) -> Iterator[Lack]:
    """Yield every check with the clusters that fail it."""
    everything = index.everything
    if needs.arch:
        yield from _other_arch(needs, index, everything)
        wanted = " or ".join(sorted(needs.arch))
        here = 0
        for _, bits in index.known(ARCH):
            here |= bits
        yield "arch", f"arch is not known yet, wanted {wanted}", everything & ~here
    accelerator = needs.accelerator
    if accelerator is not None and accelerator.kind:
        test = FactTest("accelerator.kind", "list", "==", (accelerator.kind,))
        yield from _fact("accelerator", test, f"it has no accelerator of kind {accelerator.kind}", index)
    if accelerator is not None and accelerator.memory_bytes:
        name = f"accelerator.{accelerator.kind}.memory" if accelerator.kind else "accelerator.memory"
        size = shown_bytes(accelerator.memory_bytes)
        test = FactTest(name, "number", ">=", (str(accelerator.memory_bytes),))
        yield from _fact("accelerator", test, f"no accelerator with {size} of memory", index)
    for code, resource, amount in amounts(needs):
        size = shown_amount(code, amount)
        least = amount * resource.unit if resource.unit > 0 else amount / -resource.unit
        column = index.measures.numbers(resource.fact)
        yield code, f"{resource.fact} is not known yet, wanted {size}", everything & ~column.known
        yield code, f"{resource.fact} < {size}", column.below(least)
        if resource.node and code != "disk":
            yield code, f"no node has {size}", index.measures.numbers(resource.node).below(least)
        free = room.has(resource, amount, index, everything)
        yield code, f"{size} do not fit beside what is placed there", everything & ~free
    for name, wanted in needs.runtimes:
        test = FactTest(f"runtime.{name}.version", "version", "==", (wanted,))
        yield from _fact("runtime", test, f"{test.name} is not in {wanted}", index)


def shown_amount(code: str, amount: int) -> str:
    """Return an amount for people, in units of ``amounts``."""
    if code in _BYTES:
        words = shown_bytes(amount << 20)
        return f"{words} (two versions)" if code == "disk" else words
    return f"{amount}m" if code == "cpu" else str(amount)


def _fact(code: str, test: FactTest, text: str, index: FleetIndex) -> Iterator[Lack]:
    holds, _ = passing(test, index)
    yield code, f"{test.name} is not known yet", index.everything & ~known(test.name, index)
    yield code, text, index.everything & ~holds


def _other_arch(needs: Needs, index: FleetIndex, asked: int) -> Iterator[Lack]:
    if needs.arch and asked:
        wanted = ", ".join(sorted(needs.arch))
        for arch, bits in index.known(ARCH):
            if arch not in needs.arch and asked & bits:
                yield "arch", f"arch {arch}, wanted {wanted}", asked & bits


def _together(lacks: Iterator[Lack] | list[Lack]) -> int:
    found = 0
    for _, _, bits in lacks:
        found |= bits
    return found


def _merged(lacks: list[Lack]) -> Iterator[Lack]:
    together: dict[tuple[str, str], int] = {}
    for code, text, bits in lacks:
        together[code, text] = together.get((code, text), 0) | bits
    yield from ((code, text, bits) for (code, text), bits in together.items())
