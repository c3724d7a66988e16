"""Deciding again, cluster by cluster and without an index: what the index must agree with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from placement.expressions import compile_expression
from placement.fact_names import kind_of
from placement.facts import in_range, items, number, quantity, release
from placement.index import ARCH, PLATFORM, known_value
from placement.selector import fact_holds, matches
from placement.types import Decision, Incumbent, Needs, Policy, Subject, Target, Term
from placement.versions import parse_wish, resolve
from tests.placement.worlds import NOW, Around

MIB = 1 << 20


class Plain:
    """One policy over one fleet, decided by loops."""

    def __init__(
        self,
        policy: Policy,
        subject: Subject,
        fleet: Sequence[Target],
        previous: Mapping[str, Incumbent] | Collection[str],
        around: Around | None = None,
        now: datetime = NOW,
    ) -> None:
        self.policy, self.subject, self.now = policy, subject, now
        self.fleet = sorted(fleet, key=lambda one: one.name)
        before = previous if isinstance(previous, Mapping) else dict.fromkeys(previous, Incumbent())
        self.before = {target.name: before[target.name] for target in fleet if target.name in before}
        self.around = around or Around()
        self.codes: dict[str, str] = {}
        self.chosen: list[str] = []
        self.variants: dict[str, str] = {}
        self.version, fault = resolve(parse_wish(policy.version), subject)
        if fault:
            self.codes = {target.name: "version" for target in fleet}
            return
        for target in self.fleet:
            code, variant = self.refusal(target)
            if code:
                self.codes[target.name] = code
            else:
                self.variants[target.name] = variant
        self.chosen = sorted(self.places(list(self.variants)))

    def refusal(self, target: Target) -> tuple[str, str]:
        incumbent = target.name in self.before
        code = self.by_terms(target, incumbent)
        if not code and self.subject.delivery in ("container", "chart") and known_value(target, PLATFORM) == "host":
            code = "delivery"
        for taint in target.taints:
            stops = taint.effect == "NoSelect" or (taint.effect == "NoSelectIfNew" and not incumbent)
            if not code and stops and not any(one.tolerates(taint) for one in self.policy.tolerations):
                code = "taint"
        return (code, "") if code else self.form(target, incumbent)

    def by_terms(self, target: Target, incumbent: bool) -> str:
        terms = self.policy.terms
        if terms is None:
            return ""
        said = [self.term(term, target) for term in terms]
        if any(code == "" for code, _ in said):
            return ""
        firm = [no for code, no in said if code == "soft"]
        if firm and incumbent:
            return "facts" if self.evicted(target, all(firm)) else ""
        if all(code == "labels" for code, _ in said):
            only_names = terms and all(not term.requirements and term.names is not None for term in terms)
            return "names" if only_names else "labels"
        first = next(term for term, (code, _) in zip(terms, said, strict=True) if code != "labels")
        code = next(code for code, _ in said if code != "labels")
        if code != "soft":
            return code
        return "facts" if any(not fact_holds(test, target, self.now) for test in first.facts) else "expression"

    def term(self, term: Term, target: Target) -> tuple[str, bool]:
        """Return what stops a term, empty for nothing and ``soft`` for facts; and whether facts contradict it."""
        if not matches(term, target):
            return "labels", False
        if term.runs_workload and target.name not in self.around.running:
            return "workload", False
        answer: bool | str = True
        soft = False
        if term.expression:
            expression = compile_expression(term.expression)
            kinds = {name: kind for name in target.facts if (kind := kind_of(name))}
            answer = expression.evaluate(target, self.subject, kinds)
            soft = expression.reads_facts
            if not soft and answer is not True:
                return "expression", False
        holding = [fact_holds(test, target, self.now) for test in term.facts]
        if all(one is True for one in holding) and answer is True:
            return "", False
        return "soft", any(one is False for one in holding) or (soft and answer is False)

    def evicted(self, target: Target, contradicted: bool) -> bool:
        after = self.policy.evict_after_s
        if after is None or not contradicted:
            return False
        terms = self.policy.terms or ()
        everything = any("facts" in term.expression for term in terms)
        names = {test.name for term in terms for test in term.facts}
        times = [at or self.now for name, (_, at) in target.facts.items() if everything or name in names]
        newest = max(times, default=self.now)
        first = self.before[target.name].contradicted or newest
        return (newest - first).total_seconds() >= after

    def form(self, target: Target, incumbent: bool) -> tuple[str, str]:
        forms = self.subject.forms(self.version)
        if incumbent:
            before = self.before[target.name]
            sticky = [one for one in forms if before.version == self.version and one.name == before.variant]
            order = [
                *(sticky if len(forms) > 1 else forms),
                *(one for one in forms if len(forms) > 1 and not self.lacks(one.needs, target)),
                *reversed(forms),
            ]
            able = [one for one in order if not one.needs.arch or known_value(target, ARCH) in {"", *one.needs.arch}]
            return ("", able[0].name) if able else ("arch", "")
        for one in forms:
            if not self.lacks(one.needs, target):
                return "", one.name
        return self.lacks(forms[-1].needs, target), ""

    def lacks(self, needs: Needs, target: Target) -> str:
        def fact(name: str) -> str | None:
            return target.facts[name][0] if name in target.facts else None

        def amount(name: str) -> float | None:
            return number(fact(name) or "")

        if needs.arch and known_value(target, ARCH) not in needs.arch:
            return "arch"
        wanted = needs.accelerator
        if wanted is not None:
            own = f"accelerator.{wanted.kind}." if wanted.kind else "accelerator."
            if wanted.kind and wanted.kind not in items(fact("accelerator.kind") or ""):
                return "accelerator"
            if wanted.memory_bytes and (amount(f"{own}memory") or 0) < wanted.memory_bytes:
                return "accelerator"
            for name, mine in (("accelerator.count", ""), (f"{own}count", wanted.kind)):
                used = sum(
                    one.accelerator.count
                    for one in self.around.promised.get(target.name, ())
                    if one.accelerator is not None and mine in ("", one.accelerator.kind)
                )
                if (amount(name) or -1) < used + wanted.count:
                    return "accelerator"
        promised = self.around.promised.get(target.name, ())
        for code, unit, of in (
            ("memory", MIB, lambda one: one.memory_bytes),
            ("disk", MIB, lambda one: 2 * one.disk_bytes),
            ("cpu", 1, lambda one: one.cpu_milli),
        ):
            if not of(needs):
                continue
            capacity = quantity(fact(f"{code}.capacity") or "")
            if capacity is None:
                return code
            most = quantity(fact(f"node.{code}.capacity") or "") if code != "disk" else None
            if code == "cpu":
                capacity, most = capacity * 1000, None if most is None else most * 1000
            units = -(-of(needs) // unit)
            used = sum(-(-of(one) // unit) for one in promised)
            if capacity // unit < units + used or (most is not None and most < units * unit):
                return code
        for name, versions in needs.runtimes:
            found = release(fact(f"runtime.{name}.version") or "")
            if found is None or not in_range(versions, found):
                return "runtime"
        return ""

    def places(self, fitting: list[str]) -> list[str]:
        policy = self.policy
        by_name = {target.name: target for target in self.fleet}
        count = len(fitting) if policy.count is None else policy.count
        score = {name: self.score(by_name[name]) for name in fitting}
        ranked = sorted(fitting, key=lambda name: (-score[name], name))
        kept = [name for name in ranked if name in self.before][:count]
        newcomers = [name for name in ranked if name not in self.before]
        chosen = [*kept, *self.spread_out(newcomers, kept, fitting, by_name, count - len(kept))]
        self.rebalance(chosen, kept, fitting, by_name)
        for name in fitting:
            if name not in chosen:
                uneven = name not in self.before and self.uneven(name, chosen, fitting, by_name)
                self.codes[name] = "spread" if uneven else "count"
        return chosen

    def score(self, target: Target, firm: bool = False) -> int:
        total = 0
        for one in self.policy.prefer:
            term = (
                Term(one.term.names, one.term.requirements, runs_workload=one.term.runs_workload) if firm else one.term
            )
            empty = firm and term.names is None and not term.requirements and not term.runs_workload
            if not empty and self.term(term, target)[0] == "":
                total += one.weight
        for taint in target.taints:
            if taint.effect == "PreferNoSelect" and not any(t.tolerates(taint) for t in self.policy.tolerations):
                total -= 100
        return total

    def spread_out(
        self, newcomers: list[str], kept: list[str], fitting: list[str], by_name: dict[str, Target], places: int
    ) -> list[str]:
        taken: list[str] = []
        for strict in (True, False):
            while len(taken) < places:
                here = [*kept, *taken]
                able = [n for n in newcomers if n not in taken and self.may(n, here, fitting, by_name, strict)]
                if not able:
                    break
                taken.append(able[0])
        return taken

    def may(self, name: str, chosen: list[str], fitting: list[str], by_name: dict[str, Target], strict: bool) -> bool:
        for rule in self.policy.spread:
            if not strict and not rule.refuse:
                continue
            value = by_name[name].labels.get(rule.key)
            if value is None or self.skew(rule.key, value, chosen, fitting, by_name) > rule.max_skew:
                return False
        return True

    def skew(self, key: str, value: str, chosen: list[str], fitting: list[str], by_name: dict[str, Target]) -> int:
        values = {label for name in fitting if (label := by_name[name].labels.get(key)) is not None}
        counts = {one: sum(by_name[name].labels.get(key) == one for name in chosen) for one in values}
        return counts[value] + 1 - min(counts.values())

    def uneven(self, name: str, chosen: list[str], fitting: list[str], by_name: dict[str, Target]) -> bool:
        return bool(self.policy.spread) and not self.may(name, chosen, fitting, by_name, strict=False)

    def rebalance(self, chosen: list[str], kept: list[str], fitting: list[str], by_name: dict[str, Target]) -> None:
        rule = self.policy.rebalance
        if rule is None or self.policy.count is None:
            return
        moves = max(1, len(chosen) * rule.max_moves // 100) if rule.percent else rule.max_moves
        firm = {name: self.score(by_name[name], firm=True) for name in fitting}
        coming = sorted((n for n in fitting if n not in chosen), key=lambda name: (-firm[name], name))
        going = sorted(kept, key=lambda name: (-firm[name], name))[::-1]
        for name in coming:
            if not moves or not going or firm[name] - firm[going[0]] < rule.min_gain:
                return
            rest = [one for one in chosen if one != going[0]]
            same = all(
                by_name[name].labels.get(one.key) == by_name[going[0]].labels.get(one.key) for one in self.policy.spread
            )
            if not same and not self.may(name, rest, fitting, by_name, strict=True):
                continue
            chosen.remove(going.pop(0))
            chosen.append(name)
            moves -= 1


def decide(
    policy: Policy, subject: Subject, fleet: Sequence[Target], previous: Collection[str]
) -> tuple[str, list[str], dict[str, str]]:
    """Return the version, the names chosen, and the code of every other name."""
    plain = Plain(policy, subject, fleet, previous)
    return plain.version, plain.chosen, plain.codes


def codes_of(decision: Decision) -> dict[str, str]:
    """Return name → code of every cluster that a decision refuses."""
    return {name: refusal.code for refusal in decision.refused for name in refusal.clusters}


def variants_of(decision: Decision) -> dict[str, str]:
    """Return name → variant of every cluster that a decision gives one."""
    return {name: variant for variant, some in decision.variants.items() for name in some}
