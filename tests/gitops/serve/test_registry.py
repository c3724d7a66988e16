"""The registry: a cluster pulls what its releases name, from any byte on, and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import os
from typing import Any

import pytest

from agent.wire.canonical import digest
from agent.wire.release import Artifact, Entry
from gitops.artifacts import ArtifactStore
from gitops.packing import PackFile, pack
from gitops.serve.registry import Span, read_range

DATA = bytes(range(256)) * 40


def model(hub: Any, name: str, data: bytes = DATA, version: str = "1.0.0") -> Artifact:
    file = PackFile("model.onnx", len(data), lambda: io.BytesIO(data))
    return pack(hub.artifacts, f"models/{name}", [file], name, version)


def entry(artifact: Artifact, name: str = "digits") -> Entry:
    return Entry("model", name, "1.0.0", "file", digest="sha256:" + "e" * 64, artifacts=(artifact,))


@pytest.fixture
def digits(hub: Any) -> Artifact:
    """A model that milan-01's release names, and turin-01's does not."""
    artifact = model(hub, "digits")
    hub.join("milan-01")
    hub.join("turin-01")
    hub.publish("milan-01", None, entry(artifact))
    hub.publish("turin-01")
    return artifact


def pull(hub: Any, path: str, cluster: str = "milan-01", method: str = "GET", **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return hub.ask(method, f"/v2/{path}", bearer=hub.credentials[cluster], headers=sent)


def layer(hub: Any, artifact: Artifact) -> str:
    return str(json.loads(hub.artifacts.manifest_bytes(artifact.digest))["layers"][0]["digest"])


def test_a_cluster_pulls_what_its_release_names(hub: Any, digits: Artifact) -> None:
    assert pull(hub, "").headers["docker-distribution-api-version"] == "registry/2.0"
    manifest = pull(hub, f"models/digits/manifests/{digits.digest}")
    assert (manifest.status, manifest.headers["content-type"]) == (200, digits.media_type)
    assert digest(manifest.body) == digits.digest == manifest.headers["docker-content-digest"]
    for one in (manifest.json["config"], *manifest.json["layers"]):
        blob = pull(hub, f"models/digits/blobs/{one['digest']}")
        assert (blob.status, digest(blob.body), int(blob.headers["content-length"])) == (
            200,
            one["digest"],
            one["size"],
        )


def test_head_tells_size_and_sends_nothing(hub: Any, digits: Artifact) -> None:
    blob = layer(hub, digits)
    answer = pull(hub, f"models/digits/blobs/{blob}", method="HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(len(DATA)))
    assert answer.headers["accept-ranges"] == "bytes"
    answer = pull(hub, f"models/digits/manifests/{digits.digest}", method="HEAD")
    assert (answer.status, answer.body, int(answer.headers["content-length"]) > 0) == (200, b"", True)


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_another_clusters_bytes_are_not_there(hub: Any, digits: Artifact, kind: str, method: str) -> None:
    wanted = digits.digest if kind == "manifests" else layer(hub, digits)
    there = pull(hub, f"models/digits/{kind}/{wanted}", "turin-01", method)
    absent = pull(hub, f"models/digits/{kind}/sha256:{'0' * 64}", "turin-01", method)
    assert there.status == absent.status == 404
    assert there.body.replace(wanted[7:].encode(), b"0" * 64) == absent.body


def test_the_same_bytes_in_another_repository_are_not_granted(hub: Any, digits: Artifact) -> None:
    model(hub, "secret")
    assert pull(hub, f"models/secret/blobs/{layer(hub, digits)}").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "models/digits/manifests/1.0.0",
        "models/digits/manifests/latest",
        "models/digits/blobs/sha256:zz",
        "models/digits/blobs/..%2f..%2f..%2fhub.sqlite",
        "../hub.sqlite/blobs/x",
        "_catalog",
        "models/digits/tags/list",
    ],
)
def test_nothing_is_found_by_other_names(hub: Any, digits: Artifact, path: str) -> None:
    assert pull(hub, path).status == 404


def test_a_layer_is_no_manifest(hub: Any, digits: Artifact) -> None:
    assert pull(hub, f"models/digits/manifests/{layer(hub, digits)}").status == 404


def test_the_previous_release_is_still_granted_and_the_one_before_is_not(hub: Any, digits: Artifact) -> None:
    path = f"models/digits/blobs/{layer(hub, digits)}"
    assert pull(hub, path).status == 200
    for sequence, status in ((2, 200), (3, 404)):
        other = model(hub, "digits", os.urandom(100), f"{sequence}.0.0")
        hub.publish("milan-01", None, entry(other), sequence=sequence)
        assert pull(hub, path).status == status


def test_an_artifact_that_arrives_after_the_release_is_granted_then(hub: Any) -> None:
    hub.join("milan-01")
    other_root = hub.root / "elsewhere"
    elsewhere = ArtifactStore.open(other_root)
    artifact = pack(elsewhere, "models/late", [PackFile("m", 4, lambda: io.BytesIO(b"late"))], "late", "1.0.0")
    hub.publish("milan-01", None, entry(artifact))
    assert pull(hub, f"models/late/manifests/{artifact.digest}").status == 404
    assert (
        pack(hub.artifacts, "models/late", [PackFile("m", 4, lambda: io.BytesIO(b"late"))], "late", "1.0.0") == artifact
    )
    assert pull(hub, f"models/late/manifests/{artifact.digest}").status == 200


def test_a_plain_file_is_granted_by_its_digest(hub: Any) -> None:
    hub.join("milan-01")
    blob = hub.artifacts.put_bytes(b"plain").digest
    hub.publish(
        "milan-01", None, entry(Artifact(blob, 5, "application/octet-stream", "hub://models/plain", "plain.bin"))
    )
    assert pull(hub, f"models/plain/blobs/{blob}").body == b"plain"


def test_other_registries_artifacts_grant_nothing(hub: Any) -> None:
    hub.join("milan-01")
    secret = model(hub, "secret")
    outside = Artifact(secret.digest, 5, secret.media_type, "oci://registry.example/models/secret")
    hub.publish("milan-01", None, entry(outside))
    assert pull(hub, f"models/secret/manifests/{secret.digest}").status == 404


@pytest.mark.parametrize(
    ("asked", "status", "first", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=100-", 206, 100, 10240),
        ("bytes=-40", 206, 10200, 10240),
        ("bytes=-99999", 206, 0, 10240),
        ("bytes=10000-99999", 206, 10000, 10240),
        ("bytes=0-1,5-6", 200, 0, 10240),
        ("bytes=x", 200, 0, 10240),
        ("lines=1-2", 200, 0, 10240),
        ("bytes=10240-", 416, 0, 0),
        ("bytes=5-4", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
    ],
)
def test_ranges(hub: Any, digits: Artifact, asked: str, status: int, first: int, end: int) -> None:
    answer = pull(hub, f"models/digits/blobs/{layer(hub, digits)}", Range=asked)
    assert (answer.status, answer.body) == (status, DATA[first:end])
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/10240"
    if status == 416:
        assert answer.headers["content-range"] == "bytes */10240"


def test_an_empty_blob_has_no_ranges() -> None:
    assert read_range("", 0) == Span(0, 0)
    assert read_range("bytes=0-", 0) is None
    assert read_range("bytes=-5", 0) is None


def test_a_range_of_other_bytes_is_not_resumed(hub: Any, digits: Artifact) -> None:
    blob = layer(hub, digits)
    path = f"models/digits/blobs/{blob}"
    assert pull(hub, path, Range="bytes=5-", If_Range=f'"{blob}"').status == 206
    assert pull(hub, path, Range="bytes=5-", If_Range='"other"').status == 200


def test_a_download_cut_off_is_resumed_where_it_ended(hub: Any) -> None:
    data = os.urandom(20 << 20)
    hub.join("milan-01")
    artifact = model(hub, "big", data)
    hub.publish("milan-01", None, entry(artifact))
    blob = layer(hub, artifact)
    hashed, got = hashlib.sha256(), 0
    while got < len(data):
        connection = hub.connect()
        headers = {"Authorization": f"Bearer {hub.credentials['milan-01']}", "Range": f"bytes={got}-"}
        connection.request("GET", f"/v2/models/big/blobs/{blob}", headers=headers)
        response = connection.getresponse()
        assert response.status == 206
        part = response.read(7 << 20)
        hashed.update(part)
        got += len(part)
        connection.close()
    assert "sha256:" + hashed.hexdigest() == blob
