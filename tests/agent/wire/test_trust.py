"""The chain of trust is walked link by link, each signed by both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.wire.errors import BadSignature, Malformed
from agent.wire.signature import SigningKey
from agent.wire.trust import Trust, is_trust_path, paths, pin, sign_trust, walk

ROOTS = [SigningKey.generate() for _ in range(3)]
HUB = SigningKey.generate()
CHAIN = [Trust("f-1", n + 1, (ROOTS[n].public,), (HUB.public,)) for n in range(3)]


def chain() -> dict[str, bytes]:
    files = {}
    for n, trust in enumerate(CHAIN):
        path, signature = paths(trust.number)
        files[path], files[signature] = sign_trust(trust, tuple(ROOTS[max(0, n - 1) : n + 1]))
    return files


def test_a_site_that_slept_through_two_changes_follows() -> None:
    assert walk(CHAIN[0], 3, chain()) == CHAIN[2]


def test_the_first_document_is_pinned_on_its_own_signature() -> None:
    files = chain()
    assert pin(files["trust/1.json"], files["trust/1.json.sig"]) == CHAIN[0]
    with pytest.raises(BadSignature):
        pin(files["trust/1.json"], files["trust/3.json.sig"])


def test_an_older_number_changes_nothing() -> None:
    assert walk(CHAIN[2], 1, {}) == CHAIN[2]


@pytest.mark.parametrize("gone", ["trust/2.json", "trust/2.json.sig"])
def test_a_missing_link_is_refused(gone: str) -> None:
    files = chain()
    del files[gone]
    with pytest.raises(BadSignature, match="broken"):
        walk(CHAIN[0], 3, files)


@pytest.mark.parametrize("roots", [[0], [1], [2], []], ids=["only old", "only new", "a stranger", "none"])
def test_a_link_must_be_signed_by_both_sides(roots: list[int]) -> None:
    files = chain()
    files["trust/2.json"], files["trust/2.json.sig"] = sign_trust(CHAIN[1], tuple(ROOTS[n] for n in roots))
    with pytest.raises(BadSignature):
        walk(CHAIN[0], 2, files)


def test_a_link_of_another_fleet_is_refused() -> None:
    files = chain()
    files["trust/2.json"], files["trust/2.json.sig"] = sign_trust(replace(CHAIN[1], fleet="f-2"), (ROOTS[0], ROOTS[1]))
    with pytest.raises(BadSignature, match="f-2"):
        walk(CHAIN[0], 2, files)


def test_a_document_without_a_root_key_is_malformed() -> None:
    files = chain()
    files["trust/2.json"], files["trust/2.json.sig"] = sign_trust(replace(CHAIN[1], root_keys=()), (ROOTS[0],))
    with pytest.raises(Malformed):
        walk(CHAIN[0], 2, files)


def test_only_trust_documents_are_trust_paths() -> None:
    assert is_trust_path("trust/1.json") and is_trust_path("trust/12.json.sig")
    assert not any(
        map(is_trust_path, ["trust/0.json", "trust/x.json", "trust/1.json.sig.sig", "a/trust/1.json", "trust/1.json\n"])
    )
