"""Terms of a policy → who may be admitted, who may stay, and why the others may not. Pure.

Names, labels, ``runsWorkload`` and expressions over labels hold or do not: they refuse everybody. Facts, and
expressions that read facts, gate admission only: a cluster that was chosen keeps its place on a stale, absent or
contradicting one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from placement.expressions import Expression, compile_expression
from placement.fact_names import DEFINITIONS, kind_of
from placement.facts import shown_failure
from placement.index import FleetIndex
from placement.postings import numbers_of
from placement.scene import Scene
from placement.selector import known, passing, select_term, stale
from placement.types import FactTest, Subject, Term

_KINDS = {one.name: one.kind for one in DEFINITIONS}


@dataclass(frozen=True, slots=True)
class Admission:
    """What the terms say.

    Attributes:
        admitted: bits of the clusters for which all of a term holds.
        kept: bits of the incumbents that stay although a fact of their term does not hold.
        contradicted: those of ``kept`` where fresh facts say no in every term.
        refused: code, reason and clusters of everybody else.
    """

    admitted: int
    kept: int
    contradicted: int
    refused: tuple[tuple[str, str, int], ...]


@dataclass(slots=True)
class _Part:
    """One term: clusters by how far they come."""

    term: Term
    labels: int
    placed: int
    firm: int
    all: int
    no: int


def admit(
    terms: Sequence[Term] | None, wanted: str, subject: Subject, index: FleetIndex, scene: Scene, incumbents: int,
    now: datetime,
) -> Admission:  # fmt: skip
    """Return what the terms say of every cluster.

    Args:
        terms: OR-ed; None for every cluster.
        wanted: what they ask for, for people.
        incumbents: bits of the clusters chosen before.
    """
    if terms is None:
        return Admission(index.everything, 0, 0, ())
    parts = [_part(term, subject, index, scene, incumbents, now) for term in terms]
    labels = admitted = firm = uncertain = 0
    for part in parts:
        labels |= part.labels
        admitted |= part.all
        firm |= part.firm
        uncertain |= part.firm & ~part.no
    kept = firm & incumbents & ~admitted
    refused: list[tuple[str, str, int]] = []
    others = index.everything & ~labels
    if others:
        only_names = bool(terms) and all(not term.requirements and term.names is not None for term in terms)
        refused.append(("names" if only_names else "labels", f"wanted {wanted}", others))
    left = labels & ~admitted & ~kept
    for part in parts:
        if not left:
            break
        for code, text, bits in _reasons(part, subject, index, now, left & part.labels):
            refused.append((code, text, bits))
            left &= ~bits
    return Admission(admitted, kept, kept & ~uncertain, tuple(refused))


def _part(
    term: Term, subject: Subject, index: FleetIndex, scene: Scene, incumbents: int, now: datetime
) -> _Part:  # fmt: skip
    labels = select_term(term, index)
    placed = labels & scene.running.get(term.runs_workload, 0) if term.runs_workload else labels
    expression = compile_expression(term.expression) if term.expression else None
    firm = placed
    if expression is not None and not expression.reads_facts:
        firm = ask(expression, subject, index, placed)[0]
    holding, no = firm, 0
    for test in term.facts:
        if firm:
            yes, readable = passing(test, index)
            fresh = ~stale(test, index, now)
            holding &= yes & fresh
            no |= firm & readable & ~yes & fresh
    if expression is not None and expression.reads_facts:
        asked = holding | (firm & incumbents)
        true, false = ask(expression, subject, index, asked)
        holding &= true
        no |= firm & false
    return _Part(term, labels, placed, firm, holding, no)


def _reasons(
    part: _Part, subject: Subject, index: FleetIndex, now: datetime, left: int
) -> Iterator[tuple[str, str, int]]:  # fmt: skip
    """Yield why clusters whose labels the term selects are not admitted by it, each once."""
    term = part.term
    if left & ~part.placed:
        yield "workload", f"workload {term.runs_workload} is not placed there", left & ~part.placed
    left &= part.placed
    if left & ~part.firm:
        yield from _said(term, subject, index, left & ~part.firm)
    left &= part.firm
    for test in term.facts:
        for text, bits in failing(test, index, now, left):
            yield "facts", text, bits
            left &= ~bits
    if left and term.expression:
        yield from _said(term, subject, index, left)


def failing(test: FactTest, index: FleetIndex, now: datetime, asked: int) -> Iterator[tuple[str, int]]:
    """Yield why a test of a fact does not hold, and for which of the clusters asked about."""
    absent = asked & ~known(test.name, index)
    if absent:
        yield f"{test.name} is not known yet", absent
    old = asked & stale(test, index, now) & ~absent
    if old:
        yield f"{test.name} was measured more than {shown_span(test.max_age_s or 0)} ago", old
    asked &= ~absent & ~old
    yes, readable = passing(test, index)
    strange = asked & ~readable
    if strange:
        yield f"{test.name} is no {test.kind}", strange
    wrong = asked & readable & ~yes
    if wrong:
        values = {index.measures.targets[n].facts[test.name][0] for n in numbers_of(wrong, 9)}
        yield shown_failure(test, values.pop() if len(values) == 1 and wrong.bit_count() < 9 else ""), wrong


def ask(expression: Expression, subject: Subject, index: FleetIndex, asked: int) -> tuple[int, int]:
    """Return the bits of the clusters for which an expression is true, and false; for the rest it says nothing."""
    verdicts = index.measures.verdicts(_key(expression, subject))
    new = asked & ~verdicts.asked
    for number in numbers_of(new):
        target = index.measures.targets[number]
        kinds = {name: kind for name in target.facts if (kind := _KINDS.get(name) or kind_of(name))}
        answer = expression.evaluate(target, subject, kinds if expression.reads_facts else {})
        if answer is True:
            verdicts.true |= 1 << number
        elif answer is False:
            verdicts.false |= 1 << number
        else:
            verdicts.errors[str(answer)] = verdicts.errors.get(str(answer), 0) | 1 << number
    return asked & verdicts.true, asked & verdicts.false


def _said(term: Term, subject: Subject, index: FleetIndex, asked: int) -> Iterator[tuple[str, str, int]]:
    expression = compile_expression(term.expression)
    ask(expression, subject, index, asked)
    verdicts = index.measures.verdicts(_key(expression, subject))
    if asked & verdicts.false:
        yield "expression", f"`{shown_expression(term.expression)}` is false", asked & verdicts.false
    for text, bits in sorted(verdicts.errors.items()):
        if asked & bits:
            yield "expression", f"`{shown_expression(term.expression)}`: {text}", asked & bits


def shown_expression(text: str) -> str:
    """Return an expression in one short line."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def shown_span(seconds: float) -> str:
    """Return a length of time as it is written: ``24h``, ``90m``."""
    for letter, unit in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f}{letter}"
    return f"{seconds:.0f}s"


def _key(expression: Expression, subject: Subject) -> tuple[str, ...]:
    if "model" not in expression.text:
        return (expression.text,)
    return (expression.text, subject.name, *(f"{key}={value}" for key, value in sorted(subject.labels.items())))
