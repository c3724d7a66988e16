"""What a cluster lacks for the needs of a version → the facts that would do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from placement.facts import in_range, quantity, release, shown_bytes, wanted_range
from placement.index import ARCH, FleetIndex, known_value
from placement.needs import shown_amount
from placement.room import Resource, amounts
from placement.slices import value_of
from placement.types import Needs
from placement.world import Change, World

Way = tuple[Change, ...]


def needed(world: World, version: str, index: FleetIndex) -> Iterator[Way]:
    """Yield, for every variant of a version, the changes that would make room for it."""
    for form in world.subject.forms(version):
        for way in _ways(world, form.needs, index):
            if way:
                yield way


def _ways(world: World, needs: Needs, index: FleetIndex) -> list[Way]:
    facts = [*_accelerator(world, needs), *_capacities(world, needs), *_runtimes(world, needs)]
    wanted = sorted(needs.arch)
    arch = known_value(world.target, ARCH)
    if not wanted or arch in wanted:
        return [tuple(facts)]
    if arch:
        text = f"arch is {arch}, wanted {' or '.join(wanted)}"
        return [(Change("arch", text, ARCH, arch), *facts)]
    text = f"arch is not known yet, wanted {' or '.join(wanted)}"
    return [(Change("fact", text, ARCH, one), *facts) for one in wanted[:1]]


def _accelerator(world: World, needs: Needs) -> Iterator[Change]:
    wanted = needs.accelerator
    if wanted is None:
        return
    facts = world.target.facts
    if wanted.kind:
        kinds = facts["accelerator.kind"][0] if "accelerator.kind" in facts else ""
        if wanted.kind not in kinds.split(","):
            text = f"it has no accelerator of kind {wanted.kind}"
            yield Change("fact", text, "accelerator.kind", f"{kinds},{wanted.kind}".strip(","))
    if wanted.memory_bytes:
        name = f"accelerator.{wanted.kind}.memory" if wanted.kind else "accelerator.memory"
        has = quantity(facts[name][0]) if name in facts else None
        if has is None or has < wanted.memory_bytes:
            text = f"{name} is {_bytes(has)}, wanted {shown_bytes(wanted.memory_bytes)}"
            yield Change("fact", text, name, str(wanted.memory_bytes))


def _capacities(world: World, needs: Needs) -> Iterator[Change]:
    for code, resource, amount in amounts(needs):
        promised = value_of(world.scene.room.promised.get(resource.fact, ()), world.number)
        least = _plain(resource, promised + amount)
        has = _known(world, resource.fact)
        if has is None:
            text = f"{resource.fact} is not known yet, wanted {shown_amount(code, amount)}"
            yield Change("fact", text, resource.fact, least)
        elif has < Decimal(least):
            yield Change("fact", _more(code, resource, has, promised, amount), resource.fact, least)
        most = _known(world, resource.node) if resource.node and code != "disk" else None
        alone = _plain(resource, amount)
        if most is not None and most < Decimal(alone):
            text = f"{resource.node} is less than {shown_amount(code, amount)}, which one node must have"
            yield Change("fact", text, resource.node, alone)


def _more(code: str, resource: Resource, has: Decimal, promised: int, amount: int) -> str:
    """Return "needs 604Mi more memory: 420Mi of 1Gi are free"."""
    units = int(has // resource.unit if resource.unit > 0 else has * -resource.unit)
    free = max(0, units - promised)
    missing = promised + amount - units
    plain = code if code != "disk" else "memory"  # how much, without the word on versions
    words = f"needs {shown_amount(plain, missing)} more {code}"
    return f"{words}: {shown_amount(plain, free)} of {shown_amount(plain, units)} are free"


def _runtimes(world: World, needs: Needs) -> Iterator[Change]:
    for name, wanted in needs.runtimes:
        fact = f"runtime.{name}.version"
        has = world.target.facts[fact][0] if fact in world.target.facts else ""
        found = release(has) if has else None
        if found is not None and in_range(wanted, found):
            continue
        value = next(versions_in("==", wanted), None)
        if value is not None:
            yield Change("fact", f"{fact} is {has or 'not known yet'}, wanted {wanted}", fact, value)


def versions_in(operator: str, wanted: str) -> Iterator[str]:
    """Yield versions at and around the bounds of a range that are on the right side of it."""
    bounds = [bound.version for some in wanted_range(wanted).ranges for bound in some]
    tried = [(0, 0, 0)]
    for one in bounds:
        tried += [
            (one.major, one.minor, one.patch),
            (one.major, one.minor, one.patch + 1),
            (one.major + 1, 0, 0),
            (max(0, one.major - (one.minor == 0)), max(0, one.minor - 1), 0),
        ]
    for major, minor, patch in tried:
        text = f"{major}.{minor}.{patch}"
        found = release(text)
        assert found is not None
        if operator not in ("==", "in") or in_range(wanted, found):
            yield text


def _known(world: World, fact: str) -> Decimal | None:
    value = world.target.facts.get(fact)
    return None if value is None else quantity(value[0])


def _plain(resource: Resource, amount: int) -> str:
    """Return an amount in the unit that the fact is measured in."""
    if resource.unit > 0:
        return str(amount * resource.unit)
    return format((Decimal(amount) / -resource.unit).normalize(), "f")


def _bytes(size: Decimal | None) -> str:
    return "not known yet" if size is None else shown_bytes(int(size))
