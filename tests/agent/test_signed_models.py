"""A model that must be signed is switched to only under a signature of a key that may sign models now."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.config import Config
from agent.content import Content
from agent.proof import Fixed
from agent.sources import Sources
from agent.stage import SiteBytes
from agent.wire.canonical import digest
from agent.wire.model_signature import OtherFilesSigned, sign_model
from agent.wire.release import Entry, with_digest
from gitops.artifacts import ArtifactStore
from gitops.packing import PackFile, pack
from tests.agent.simulated_site import Edge, model

ANN, BOB = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
FILES = {"model.onnx": digest(b"weights")}


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def signed(
    version: str, key: Ed25519PrivateKey | None, signature: bytes | None = None
) -> tuple[Entry, Mapping[str, bytes]]:
    entry, files = model(version=version, requires=("model-signature",))
    made = sign_model(FILES, "digits", key) if key is not None else signature
    files = files | ({"models/digits/model.sig": made} if made is not None else {})
    return with_digest(entry, files), files


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    edge = Edge(tmp_path, model_keys=(public(ANN), public(BOB)))
    edge.settle(edge.release(signed("1.0.0", ANN)))
    assert edge.serves("model", "digits") == "1.0.0"
    return edge


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        pytest.param(signed("2.0.0", None), "EF2210", id="unsigned"),
        pytest.param(signed("2.0.0", Ed25519PrivateKey.generate()), "EF2211", id="signed by a stranger"),
        pytest.param(signed("2.0.0", None, b"{}"), "EF2211", id="no signature at all"),
        pytest.param(
            signed("2.0.0", None, sign_model(FILES, "digits", ANN).replace(b'"sig": "', b'"sig": "AAAA')),
            "EF2211",
            id="spoiled",
        ),
    ],
)
def test_what_is_not_rightly_signed_is_never_switched_to(
    edge: Edge, entry: tuple[Entry, Mapping[str, bytes]], code: str
) -> None:
    edge.settle(edge.release(entry))
    for _ in range(20):
        edge.look()
    assert edge.serves("model", "digits") == "1.0.0"
    assert not any("2.0.0" in line and line.split()[0] in ("Start", "Switch") for line in edge.world.log)
    assert edge.reports()["model/digits"].code == code
    edge.reboot()
    edge.settle()
    assert edge.serves("model", "digits") == "1.0.0"


def test_a_removed_key_signs_nothing_any_more_and_what_runs_goes_on(edge: Edge) -> None:
    edge.trust, edge.model_keys = 2, (public(BOB),)
    edge.settle(edge.release(signed("2.0.0", ANN)))
    assert edge.serves("model", "digits") == "1.0.0"
    assert edge.reports()["model/digits"].code == "EF2211"
    edge.settle(edge.release(signed("3.0.0", BOB)))
    assert edge.serves("model", "digits") == "3.0.0"


def test_a_key_that_is_removed_while_a_version_is_tested_stops_it(tmp_path: Path) -> None:
    edge = Edge(tmp_path, model_keys=(public(ANN),))
    edge.settle(edge.release(signed("1.0.0", ANN)))
    edge.world.behaviour["2.0.0"] = "never"  # it stays in its start
    edge.look(edge.release(signed("2.0.0", ANN)))
    edge.look()
    edge.trust, edge.model_keys = 2, (public(BOB),)
    edge.look(edge.release(signed("2.0.0", ANN)))
    edge.world.behaviour["2.0.0"] = ""
    edge.settle()
    assert edge.serves("model", "digits") == "1.0.0"
    assert not any(line.startswith("Switch digits 2.0.0") for line in edge.world.log)


def test_a_key_that_is_added_lets_the_version_through(edge: Edge) -> None:
    carol = Ed25519PrivateKey.generate()
    edge.settle(edge.release(signed("2.0.0", carol)))
    assert edge.serves("model", "digits") == "1.0.0"
    edge.trust, edge.model_keys = 2, (public(carol),)
    edge.settle(edge.release(signed("2.0.0", carol)))
    assert edge.serves("model", "digits") == "2.0.0"


def test_the_release_key_does_not_sign_models(edge: Edge) -> None:
    edge.settle(edge.release(signed("2.0.0", edge.signer._key)))
    assert edge.serves("model", "digits") == "1.0.0"


def test_a_signature_over_other_files_is_refused_when_they_are_staged(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path / "store")
    artifact = pack(
        store, "models/reader", [PackFile("model.onnx", 7, lambda: io.BytesIO(b"weights"))], "reader", "1.0.0"
    )
    site = SiteBytes(
        Content(tmp_path / "content", 0),
        Sources(Config("c", "f", store=str(store.root)), Fixed(""), tmp_path / "state"),
    )
    path = "models/reader/model.sig"

    def staged(files: Mapping[str, str]) -> object:
        entry = Entry("model", "reader", "1.0.0", "file", artifacts=(artifact,), requires=("model-signature",))
        overlay = {path: sign_model(files, "reader", ANN)}
        return site.stage(with_digest(entry, overlay), overlay)

    with pytest.raises(OtherFilesSigned):
        staged({"model.onnx": digest(b"others")})
    with pytest.raises(OtherFilesSigned):
        staged(FILES | {"more": digest(b"")})
    assert staged(FILES)
