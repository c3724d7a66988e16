"""A plan says what publishing then does, line by line, and what it costs; planned twice it says the same."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gitops.changes import Move
from gitops.cli.plan import plan
from gitops.demo.documents import cluster, placement, version
from gitops.hub import World
from gitops.hubless import full_plan_of
from gitops.plan_text import plan_markdown, plan_rows, size
from gitops.planning import Plan
from tests.gitops.test_hub import NOW, Repository, opened
from tests.gitops.test_hub_rollouts import ROLLOUT, SITES, Sites


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    one = Repository(tmp_path / "models")
    one.commit({"workloads": None, "clusters": None})
    one.commit(
        {path: text for n in SITES for path, text in cluster(n, tier="canary" if n == SITES[0] else "x").items()}
    )
    one.commit(placement("digits", model="digits", clusters=[{"names": list(SITES[:4])}]))
    return one


@pytest.fixture
def sites(tmp_path: Path, repository: Repository) -> Sites:
    """Four of six sites with 1.0.0."""
    found = Sites(opened(tmp_path, repository))
    found.step()
    return found


def planned(sites: Sites, repository: Repository) -> Plan:
    return full_plan_of(repository.folder, str(sites.fleet.repository.path), None, now=NOW)


def lines(moves: Any) -> list[tuple[str, ...]]:
    return [(m.cluster, m.kind, m.name, m.before, m.after, m.before_digest, m.after_digest) for m in sorted(moves)]


EDITS: dict[str, dict[str, Any]] = {
    "gain": placement("digits", model="digits", clusters=[{"names": list(SITES[:5])}]),
    "lose": placement("digits", model="digits", clusters=[{"names": list(SITES[:3])}]),
    "move": placement("digits", model="digits", clusters=[{"names": list(SITES[2:])}]),
    "change": dict(version("digits", "2.0.0")),
    "delete": {"placements/digits.yaml": None},
    "retire": {"clusters/site-0.yaml": None},
    "override": placement("digits", model="digits", clusters=[{"names": list(SITES[:4])}], overrides=[
        {"matchLabels": {"tier": "canary"}, "values": {"threshold": "0.1"}}]),
    "nothing": {"README.md": "words"},
}  # fmt: skip


@pytest.mark.parametrize("edit", sorted(EDITS))
def test_planned_twice_and_then_published_it_agrees_line_by_line(
    sites: Sites, repository: Repository, edit: str
) -> None:
    repository.commit(EDITS[edit])
    one, two = planned(sites, repository), planned(sites, repository)
    assert one.as_json() == two.as_json()
    before = {name: dict(found.entries) for name, found in sites.fleet.hub.published.items()}
    done = sites.step(1)
    assert lines(one.moves) == lines(one.now) == lines(done.moves)
    after = {name: dict(found.entries) for name, found in sites.fleet.hub.published.items()}
    assert {m.cluster for m in one.moves} == {n for n in before | after if before.get(n) != after.get(n)}


def test_a_plan_by_waves_shows_the_end_and_the_end_is_reached(sites: Sites, repository: Repository) -> None:
    rollout = placement("digits", model="digits", clusters=[{"names": list(SITES[:4])}], rollout=ROLLOUT)
    repository.commit(rollout)
    sites.settle()
    repository.commit(version("digits", "2.0.0"))
    plan_ = planned(sites, repository)
    (batch,) = plan_.batches
    assert len(batch.clusters) == 4 and batch.rollout == "canary → 50% → 100%, soak 10 min"
    seen: set[Move] = set()
    for _ in range(12):
        seen |= set(sites.step(6).moves)
    assert lines(seen) == lines(plan_.moves)


def test_every_line_has_its_reason(sites: Sites, repository: Repository) -> None:
    repository.commit(EDITS["move"])
    by_what = {one.what: one for one in planned(sites, repository).batches}
    assert by_what["gain"].why == "placement digits chooses it"
    assert "does not choose it: wanted named" in by_what["lose"].why
    repository.commit(version("digits", "2.0.0"))
    by_what = {one.what: one for one in planned(sites, repository).batches}
    assert by_what["change"].why == "version, artifact changed"


def test_bytes_are_those_that_are_not_there_already(sites: Sites, repository: Repository) -> None:
    model = repository.folder / "models" / "digits" / "model.yaml"
    repository.commit({"models/digits/model.yaml": model.read_text().replace('"0.6"', '"0.9"')})
    values = planned(sites, repository)
    assert values.fetched == {} and values.batches[0].why == "values changed"
    assert '-"threshold":"0.6"' in values.batches[0].diff.replace("{", "").replace("}", "").replace('"values":', "")
    repository.commit(version("digits", "2.0.0"))
    full = planned(sites, repository)
    assert len(full.fetched) == 4 and len(set(full.fetched.values())) == 1
    assert sum(full.fetched.values()) == full.batches[0].bytes_all > 0
    assert full.unknown_disk == 4


def test_what_waits_for_approval_is_said_with_its_hash(tmp_path: Path, repository: Repository) -> None:
    repository.commit(placement("digits", model="digits"))
    sites = Sites(opened(tmp_path, repository))
    sites.step()
    repository.commit({"placements/digits.yaml": None})
    found = planned(sites, repository)
    sites.fleet.sources.look_again()
    assert found.approval == sites.fleet.hub.step(World(NOW + timedelta(hours=1))).guarded.hash
    assert f"Edgeferry-Approve: {found.approval}" in plan_markdown(found)


def test_text_json_and_markdown_tell_the_same(sites: Sites, repository: Repository) -> None:
    repository.commit(version("digits", "2.0.0"))
    asked = [str(repository.folder), "--fleet", str(sites.fleet.repository.path)]
    text, json_, markdown = (
        CliRunner().invoke(plan, [*asked, "-o", form]).output for form in ("table", "json", "markdown")
    )
    told = json.loads(json_)
    assert len(told["moves"]) == 4 and told["batches"][0]["to"] == "2.0.0"
    for shown in (text, markdown):
        assert "1.0.0" in shown and "2.0.0" in shown and "site-0, site-1, site-2 and 1 more" in shown
    assert "```diff" in markdown and "| WHAT |" in markdown
    assert len(plan_rows(planned(sites, repository))) == 2


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_sizes_are_said_in_their_largest_unit(count: int, text: str) -> None:
    assert size(count) == text
