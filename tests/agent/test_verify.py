"""An overlay is in force only when all of it is proven; everything else leaves what runs alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.verify import (
    Accepted,
    DoubleEntry,
    FileMissing,
    FileNotListed,
    FileOutOfPlace,
    Ignored,
    NoRelease,
    NotForUs,
    SequenceConflict,
    TrustWithdrawn,
    accept,
)
from agent.wire.canonical import canonical, digest
from agent.wire.errors import BadSignature, DigestMismatch, EdgeferryError, Malformed, Stop, UnsupportedFormat
from agent.wire.overlay import Limits, OverlayRefused
from agent.wire.release import NAME, SIGNATURE_NAME, Artifact, SelfTest
from agent.wire.signature import RELEASE, REPORT
from agent.wire.trust import encode_trust, sign_trust
from tests.agent.signed_overlay import CLUSTER, FLEET, MANIFEST, Overlay, entry, key, link, trust

CASES = Path(__file__).parents[1] / "cases" / "overlays"
HONEST = Overlay()
LIMITS = Limits(files=20, file_bytes=20_000, total_bytes=60_000)
AGENT = key("agent").fingerprint
Files = dict[str, bytes]


def check(files: Files, **changes: Any) -> Accepted | Ignored:
    site: dict[str, Any] = {
        "cluster": CLUSTER,
        "fleet": FLEET,
        "key_fingerprint": AGENT,
        "trust": trust(1),
        "trust_documents": link(1),
        "current": (6, "sha256:" + "0" * 64),
        "limits": LIMITS,
    }
    return accept(files, **{**site, **changes})


def content(files: Files) -> str:
    value: str = json.loads(files[NAME])["content"]
    return value


def test_an_honest_overlay_is_accepted_with_the_bytes_as_they_came() -> None:
    files = HONEST.files()
    taken = check(files)
    assert isinstance(taken, Accepted)
    assert taken.release.sequence == 7 and taken.trust == trust(1) and not taken.trust_files
    assert taken.files == {path: data for path, data in files.items() if not path.startswith("trust/")}


def test_a_signed_release_without_entries_is_an_instruction() -> None:
    taken = check(HONEST.but(contents={}, entries=()).files())
    assert isinstance(taken, Accepted) and not taken.release.entries


def test_a_first_release_needs_no_predecessor() -> None:
    assert isinstance(check(HONEST.files(), current=None), Accepted)


def test_a_release_for_this_agents_key_is_accepted() -> None:
    assert isinstance(check(HONEST.but(cluster_key=AGENT).files()), Accepted)


def signed(change: Callable[[Any], Any]) -> Files:
    """Return an honest overlay whose release was changed, and signed so."""
    files = HONEST.files()
    value = json.loads(files[NAME])
    data = canonical(change(value) or value)
    return {**files, NAME: data, SIGNATURE_NAME: key("release 1").sign(data, RELEASE)}


def without(name: str) -> Files:
    return {path: data for path, data in HONEST.files().items() if path != name}


DEEP = b'{"a":' * 100_000
HOSTILE: dict[str, tuple[Files, type[EdgeferryError]]] = {
    "nothing at all": ({}, NoRelease),
    "no release": (without(NAME), NoRelease),
    "no signature": (without(SIGNATURE_NAME), NoRelease),
    "empty signature": ({**HONEST.files(), SIGNATURE_NAME: b""}, NoRelease),
    "signature of another release": (
        {**HONEST.files(), SIGNATURE_NAME: HONEST.but(sequence=8).files()[SIGNATURE_NAME]},
        BadSignature,
    ),
    "unknown signer": (HONEST.but(signer="somebody").files(), BadSignature),
    "signed by a root key": (HONEST.but(signer="root 1").files(), BadSignature),
    "signed by the agent's own key": (HONEST.but(signer="agent").files(), BadSignature),
    "signed for another purpose": (HONEST.but(namespace=REPORT).files(), BadSignature),
    "re-serialised release": (
        {**HONEST.files(), NAME: json.dumps(json.loads(HONEST.files()[NAME]), indent=1).encode()},
        BadSignature,
    ),
    "no JSON, unsigned": ({**HONEST.files(), NAME: DEEP}, OverlayRefused),
    "another fleet": (HONEST.but(fleet="fleet-2").files(), NotForUs),
    "another cluster": (HONEST.but(cluster="turin-03").files(), NotForUs),
    "another agent's key": (HONEST.but(cluster_key="SHA256:other").files(), NotForUs),
    "trust that does not exist": (HONEST.but(trust=9, signer="release 1").files(), BadSignature),
    "chain with a gap": (HONEST.but(trust=3, links=(1, 3)).files(), BadSignature),
    "a newer key than the trust it names": (
        HONEST.but(trust=1, signer="release 2", links=(1, 2)).files(),
        BadSignature,
    ),
    "file with other bytes": ({**HONEST.files(), MANIFEST: b"kind: Deploymenu\n"}, DigestMismatch),
    "file not listed": ({**HONEST.files(), "models/reader/extra.yaml": b"kind: Pod\n"}, FileNotListed),
    "file like trust": ({**HONEST.files(), "trust/evil.json": b"{}"}, FileNotListed),
    "listed file missing": (without(MANIFEST), FileMissing),
    "trust document listed as a file": (HONEST.but(listed={"trust/1.json": digest(b"")}).files(), FileMissing),
    "path that leaves the directory": (HONEST.but(contents={"models/reader/../../x": b""}).files(), OverlayRefused),
    "absolute path": (HONEST.but(contents={"/etc/passwd": b""}).files(), OverlayRefused),
    "path into .git": (HONEST.but(contents={"models/reader/.git/config": b""}).files(), OverlayRefused),
    "path with a line break": (HONEST.but(contents={"models/reader/a\nb": b""}).files(), OverlayRefused),
    "unsafe path that is only received": ({**HONEST.files(), "../x": b""}, OverlayRefused),
    "file and directory of one name": (
        HONEST.but(contents={"models/reader/a": b"", "models/reader/a/b": b""}).files(),
        OverlayRefused,
    ),
    "too many files": (HONEST.but(contents={f"models/reader/{n}": b"" for n in range(30)}).files(), OverlayRefused),
    "one file too large": (HONEST.but(contents={MANIFEST: bytes(20_001)}).files(), OverlayRefused),
    "too large in all": (
        HONEST.but(contents={f"models/reader/{n}": bytes(19_000) for n in range(4)}).files(),
        OverlayRefused,
    ),
    "giant trust document": ({**HONEST.files(), "trust/2.json": bytes(65 << 10)}, OverlayRefused),
    "an entry twice": (HONEST.but(entries=[entry({}), entry({})]).files(), DoubleEntry),
    "a file of no entry": (HONEST.but(entries=[], contents={MANIFEST: b""}).files(), FileOutOfPlace),
    "a file in place of an entry's directory": (HONEST.but(contents={"models/reader": b""}).files(), FileOutOfPlace),
    "a second file at the top": (HONEST.but(contents={"run.sh": b""}).files(), FileOutOfPlace),
    "an entry's name that is a path": (
        HONEST.but(entries=[replace(entry({}), name="../x")], contents={}).files(),
        Malformed,
    ),
    "an entry's namespace that is a path": (
        HONEST.but(entries=[replace(entry({}), namespace="a/b")], contents={}).files(),
        Malformed,
    ),
    "an artifact's path that leaves": (
        HONEST.but(
            entries=[entry({}, artifacts=(Artifact(digest(b""), 1, "x", "hub://a", "../x"),))], contents={}
        ).files(),
        OverlayRefused,
    ),
    "a self-test elsewhere": (
        HONEST.but(
            entries=[replace(entry({}), self_test=SelfTest("kustomization.yaml", "kustomization.yaml"))]
        ).files(),
        FileOutOfPlace,
    ),
    "digest that is none": (HONEST.but(listed={MANIFEST: "md5:0"}).files(), Malformed),
    "a signed release of a newer format": (signed(lambda value: value.update(format=2)), UnsupportedFormat),
    "a signed release without a field": (signed(lambda value: value.pop("sequence") and None), Malformed),
    "a signed release that is a list": (signed(lambda value: [value]), Malformed),
}


@pytest.mark.parametrize(("files", "fault"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_overlay_is_refused(files: Files, fault: type[EdgeferryError]) -> None:
    with pytest.raises(fault) as caught:
        check(files)
    assert type(caught.value) is fault and isinstance(caught.value, Stop)


def test_a_lower_sequence_is_ignored_and_not_a_fault() -> None:
    assert check(HONEST.but(sequence=5).files()) == Ignored("older", 5)


def test_what_the_hub_said_at_the_join_is_a_floor() -> None:
    assert check(HONEST.but(sequence=7).files(), current=None, least_sequence=8) == Ignored("older", 7)
    assert isinstance(check(HONEST.but(sequence=8).files(), current=None, least_sequence=8), Accepted)


def test_the_release_in_force_once_more_changes_nothing() -> None:
    files = HONEST.files()
    assert check(files, current=(7, content(files))) == Ignored("same", 7)


def test_one_sequence_with_two_contents_is_a_loud_fault() -> None:
    with pytest.raises(SequenceConflict, match="two hubs"):
        check(HONEST.files(), current=(7, "sha256:" + "1" * 64))


def test_an_older_release_with_a_bad_signature_is_not_taken_for_a_stale_mirror() -> None:
    with pytest.raises(BadSignature):
        check(HONEST.but(sequence=5, signer="somebody").files())


def test_a_site_that_slept_through_two_key_changes_follows_the_chain() -> None:
    taken = check(HONEST.but(trust=3, links=(1, 2, 3)).files())
    assert isinstance(taken, Accepted)
    assert taken.trust == trust(3) and taken.trust_files == link(2) | link(3)


def test_trust_goes_no_further_than_the_release_asks() -> None:
    taken = check(HONEST.but(links=(1, 2)).files())
    assert isinstance(taken, Accepted) and taken.trust == trust(1) and not taken.trust_files


def test_a_broken_link_behind_the_one_wanted_does_no_harm() -> None:
    assert isinstance(check({**HONEST.files(), "trust/2.json": b"{", "trust/2.json.sig": b""}), Accepted)


def test_a_release_by_withdrawn_keys_is_refused() -> None:
    with pytest.raises(TrustWithdrawn):
        check(HONEST.files(), trust=trust(2), trust_documents=link(1) | link(2))


def test_a_stale_mirror_from_before_a_key_change_is_ignored() -> None:
    files = HONEST.but(sequence=5).files()
    assert check(files, trust=trust(2), trust_documents=link(1) | link(2)) == Ignored("older", 5)


@pytest.mark.parametrize(
    "forged",
    [
        dict(zip(link(2), sign_trust(trust(2), (key("root 2"),)), strict=True)),
        dict(zip(link(2), sign_trust(trust(2), (key("root 1"),)), strict=True)),
        dict(zip(link(2), sign_trust(trust(2, "fleet-2"), (key("root 1"), key("root 2"))), strict=True)),
        dict(zip(link(2), sign_trust(trust(3), (key("root 1"), key("root 3"))), strict=True)),
        {**link(2), "trust/2.json": encode_trust(replace(trust(2), release_keys=(key("somebody").public,)))},
    ],
    ids=["by its own root only", "by the old root only", "of another fleet", "of another number", "changed afterwards"],
)
def test_a_forged_link_of_the_chain_is_refused(forged: Files) -> None:
    with pytest.raises(BadSignature):
        check({**HONEST.but(trust=2).files(), **forged})


def test_trust_of_another_fleet_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not of"):
        check(HONEST.files(), trust=trust(1, "fleet-2"))


@given(st.data())
def test_a_changed_byte_anywhere_changes_nothing(data: st.DataObject) -> None:
    files = HONEST.but(trust=2, links=(1, 2)).files()
    wanted = check(files)
    path = data.draw(st.sampled_from(sorted(set(files) - set(link(1)))))
    at = data.draw(st.integers(0, len(files[path]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != files[path][at]))
    spoiled = files[path][:at] + bytes([byte]) + files[path][at + 1 :]
    try:
        taken = check({**files, path: spoiled})
    except Stop:
        return
    # Armor may break its lines otherwise, and a second signature may be spoiled: what is signed is the same then.
    assert path.endswith(".sig") and isinstance(taken, Accepted) and isinstance(wanted, Accepted)
    assert taken.release == wanted.release and taken.trust == wanted.trust


@given(st.dictionaries(st.sampled_from([NAME, SIGNATURE_NAME, "trust/2.json", "x"]), st.binary(max_size=300)))
def test_random_files_are_refused(files: Files) -> None:
    with pytest.raises(Stop):
        check(files)


def case_files(folder: Path) -> Files:
    given_folder = folder / "given"
    return {
        str(path.relative_to(given_folder)): path.read_bytes() for path in given_folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("folder", sorted(CASES.iterdir()), ids=lambda folder: folder.name)
def test_overlays_of_earlier_versions_are_judged_as_they_were(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    site = json.loads((folder / "site.json").read_text())
    known = trust(site["trust"])
    current = tuple(site["current"]) if site["current"] else None
    try:
        taken = check(case_files(folder), trust=known, trust_documents=link(site["trust"]), current=current)
    except EdgeferryError as error:
        assert {"refused": error.code} == expected
    else:
        assert (
            {"ignored": taken.reason}
            if isinstance(taken, Ignored)
            else {
                "accepted": taken.release.sequence,
                "trust": taken.trust.number,
                "entries": [f"{one.kind}/{one.name} {one.digest}" for one in taken.release.entries],
            }
        ) == expected
