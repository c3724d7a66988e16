"""What is no fault of a placement, and yet most likely not meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gitops import faults, kinds, version_folders
from gitops.catalog_checks import Checked
from gitops.deciding import Decided
from gitops.documents import Located
from gitops.faults import Code, Fault
from gitops.policies import to_policies
from gitops.source_documents import SourceDocuments
from gitops.yaml_text import Place
from placement.facts import shown_test
from placement.index import FleetIndex
from placement.needs import lacking
from placement.room import Room
from placement.satisfiable import contradiction
from placement.selector import passing, select, select_term
from placement.types import Decision, Policy, Subject, Term


def policy_notes(checked: Checked, decided: Decided, *, with_facts: bool) -> list[Fault]:
    """Return what is worth a look in the placements.

    Args:
        checked: the documents.
        decided: the decisions over them.
        with_facts: whether facts of the clusters are known.
    """
    found: list[Fault] = []
    for source, _, located in checked.every("Placement"):
        document = located.document
        assert isinstance(document, kinds.Placement)
        policies = to_policies(document, checked.catalog)
        if not policies:
            note = _Note(source, located)
            what = "it selects no model: none has these labels"
            found.append(note(("spec", "models"), faults.SELECTS_NOTHING, what, "label the models, or mend it"))
        for policy in policies[:1]:
            decision = decided.decisions[policy.name]
            found += _of(policy, decision, decided, _Note(source, located), with_facts)
    return found


class _Note:
    """Makes notes on one document."""

    def __init__(self, source: SourceDocuments, located: Located) -> None:
        self._source, self._located = source, located

    def __call__(self, place: Place, code: Code, what: str, do: str) -> Fault:
        return version_folders.at(self._source.tree, self._located, place, code, what, do)


def _of(policy: Policy, decision: Decision, decided: Decided, note: _Note, with_facts: bool) -> Iterator[Fault]:
    index = decided.index
    yield from _terms(policy.terms or (), index, note, with_facts)
    candidates = select(policy.terms, index)
    if not index.everything or not candidates:
        return
    for n, rule in enumerate(policy.spread):
        if not candidates & index.keys.get(rule.key, 0):
            what = f"none of the {candidates.bit_count()} clusters that it selects has the label {rule.key}"
            yield note(("spec", "spread", n, "key"), faults.SPREAD_OVER_NOTHING, what, "label them, or take it out")
    if with_facts and not decision.fault:
        yield from _needs(decision, decided.subjects[policy.name], index, candidates, note)
    by_priority = [one for one in decision.refused if one.code == "priority"]
    if by_priority and not decision.chosen.bits:
        what = f"everything that it would choose is held by others: {by_priority[0].text}"
        yield note(("spec",), faults.SHADOWED, what, "take it out, or raise its priority")


def _terms(terms: Sequence[Term], index: FleetIndex, note: _Note, with_facts: bool) -> Iterator[Fault]:
    before = 0
    for n, term in enumerate(terms):
        place: Place = ("spec", "clusters", n)
        against = contradiction(term)
        selected = select_term(term, index)
        if against:
            yield note(place, faults.CONTRADICTING, f"it can never hold: {against}", "mend it, or take it out")
        elif index.everything and not selected and term.names is None:
            what = f"it selects none of the {len(index.ordered)} clusters"
            yield note(place, faults.SELECTS_NOTHING, what, "check keys and values, or label the clusters")
        elif selected and not selected & ~before:
            what = "it selects nothing that the terms before it do not"
            yield note(place, faults.SHADOWED, what, "take it out")
        elif selected and with_facts:
            for m, test in enumerate(term.facts):
                if not passing(test, index)[0] & selected:
                    what = f"no cluster that it selects has {shown_test(test)}"
                    yield note((*place, "facts", m), faults.NEVER_MET, what, "ask for less, or add clusters that do")
        if not term.facts and not term.expression and not term.runs_workload:
            before |= selected


def _needs(
    decision: Decision, subject: Subject, index: FleetIndex, candidates: int, note: _Note
) -> Iterator[Fault]:  # fmt: skip
    """Yield a note where no selected cluster has room for any form of the version, were nothing else placed there."""
    reasons = []
    for form in subject.forms(decision.version):
        lacks = list(lacking(form.needs, index, Room(), candidates))
        left = candidates
        for _, _, bits in lacks:
            left &= ~bits
        if left or any("not known yet" in text for _, text, _ in lacks):
            return
        reasons.append(lacks[0][1])
    what = f"no cluster that it selects can have {subject.name} {decision.version}: {reasons[0]}"
    yield note(("spec",), faults.NEVER_MET, what, "lower its needs, or add clusters that have it")
