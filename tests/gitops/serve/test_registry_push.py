"""The embedded store as a registry that is pushed to: by the suite of the specification, by skopeo, by hand."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.wire.canonical import canonical, digest
from gitops.oci_manifest import OCI_MANIFEST
from tests import conformance

OPERATOR = "op-token"
BLOB = bytes(range(256)) * 1000
REPOSITORY = "models/digits"


def ask(hub: Any, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return hub.ask(method, path if path.startswith("/v2") else f"/v2/{path}", bearer=OPERATOR, body=body, headers=sent)


def begin(hub: Any) -> str:
    answer = ask(hub, "POST", f"{REPOSITORY}/blobs/uploads/")
    assert answer.status == 202
    return str(answer.headers["location"])


def put_blob(hub: Any, data: bytes) -> str:
    answer = ask(hub, "POST", f"{REPOSITORY}/blobs/uploads/?digest={digest(data)}", data)
    assert answer.status == 201, answer.body
    return digest(data)


def put_manifest(hub: Any, reference: str = "", **more: Any) -> str:
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": put_blob(hub, b"{}"), "size": 2},
        "layers": [{"mediaType": "application/octet-stream", "digest": put_blob(hub, BLOB), "size": len(BLOB)}],
    }
    data = canonical(value | more)
    answer = ask(hub, "PUT", f"{REPOSITORY}/manifests/{reference or digest(data)}", data, content_type=OCI_MANIFEST)
    assert answer.status == 201, answer.body
    return digest(data)


@pytest.mark.timeout(600)
def test_the_suite_of_the_specification_passes(hub: Any, tmp_path: Path) -> None:
    settings = {
        **os.environ,
        "OCI_REGISTRY": f"127.0.0.1:{hub.port}",
        "OCI_TLS": "disabled",
        "OCI_USERNAME": "ann",
        "OCI_PASSWORD": OPERATOR,
        "OCI_VERSION": "1.1",
        "OCI_DATA_SHA512": "false",
        "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
        "OCI_RESULTS_DIR": str(tmp_path / "results"),
    }
    run = subprocess.run(
        [conformance.program()], env=settings, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    wrong = [line for line in run.stdout.splitlines() if "FAIL" in line or "Error" in line]
    assert run.returncode == 0 and "Result: Pass" in run.stdout, "\n".join(wrong)[:4000]


def test_skopeo_pushes_lists_inspects_pulls_and_deletes(hub: Any, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        conformance.missing("skopeo")
    shelf = tmp_path / "layout"
    blobs = shelf / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        (blobs / digest(data).removeprefix("sha256:")).write_bytes(data)
        return {"digest": digest(data), "size": len(data)}

    packed = gzip.compress(BLOB, mtime=0)
    layer = put(packed) | {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    config = put(
        json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    )
    manifest = put(
        canonical(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": config | {"mediaType": "application/vnd.oci.image.config.v1+json"},
                "layers": [layer],
            }
        )
    )
    named = manifest | {"mediaType": OCI_MANIFEST, "annotations": {"org.opencontainers.image.ref.name": "1.0.0"}}
    (shelf / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (shelf / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    there = f"docker://127.0.0.1:{hub.port}/{REPOSITORY}:1.0.0"
    login = f"ann:{OPERATOR}"

    def skopeo(*words: str) -> str:
        run = subprocess.run(
            ["skopeo", "--insecure-policy", *words], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    skopeo("copy", "--dest-tls-verify=false", "--dest-creds", login, f"oci:{shelf}:1.0.0", there)
    skopeo("copy", "--dest-tls-verify=false", "--dest-creds", login, f"oci:{shelf}:1.0.0", there)
    about = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", "--creds", login, there))
    assert about["layers"][0]["digest"] == layer["digest"]
    tags = json.loads(skopeo("list-tags", "--tls-verify=false", "--creds", login, there.rpartition(":")[0]))
    assert tags["Tags"] == ["1.0.0"]
    back = tmp_path / "back"
    skopeo("copy", "--src-tls-verify=false", "--src-creds", login, there, f"dir:{back}")
    assert (back / layer["digest"].removeprefix("sha256:")).read_bytes() == packed
    skopeo("delete", "--tls-verify=false", "--creds", login, there)
    assert ask(hub, "HEAD", f"{REPOSITORY}/manifests/{manifest['digest']}").status == 404


def test_an_upload_goes_on_where_it_was_cut(hub: Any) -> None:
    place = begin(hub)
    connection = hub.connect()
    connection.putrequest("PATCH", place)
    for name, value in {"Authorization": f"Bearer {OPERATOR}", "Content-Length": str(len(BLOB))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(BLOB[:100_000])
    connection.close()  # cut
    here = -1
    while True:  # the hub notices the cut in its own time; a piece under way refuses another
        answer = ask(hub, "GET", place)
        last = int(answer.headers["range"].partition("-")[2])
        first = 0 if last == 0 else last + 1
        here = ask(hub, "PATCH", place, BLOB[first:], content_range=f"{first}-{len(BLOB) - 1}").status
        if here == 202:
            break
        assert here == 416
    assert ask(hub, "PUT", f"{place}?digest={digest(BLOB)}").status == 201
    assert ask(hub, "GET", f"{REPOSITORY}/blobs/{digest(BLOB)}").body == BLOB


def test_a_piece_out_of_turn_changes_nothing(hub: Any) -> None:
    place = begin(hub)
    assert ask(hub, "PATCH", place, BLOB[:10], content_range="0-9").status == 202
    for span in ("0-9", "11-20", "x", "9-3"):
        assert ask(hub, "PATCH", place, BLOB[10:20], content_range=span).status == 416
    assert ask(hub, "GET", place).headers["range"] == "0-9"


def test_other_bytes_than_the_digest_names_end_the_upload(hub: Any) -> None:
    place = begin(hub)
    answer = ask(hub, "PUT", f"{place}?digest={digest(b'other')}", BLOB)
    assert (answer.status, answer.json["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert ask(hub, "GET", place).status == 404 == ask(hub, "HEAD", f"{REPOSITORY}/blobs/{digest(b'other')}").status
    assert list(hub.artifacts.incoming.iterdir()) == []


def test_an_upload_belongs_to_its_repository(hub: Any) -> None:
    place = begin(hub).replace(REPOSITORY, "models/other")
    assert ask(hub, "PATCH", place, BLOB).status == 404


def test_what_is_led_to_is_not_deleted(hub: Any) -> None:
    wanted = put_manifest(hub, "1.0.0")
    assert ask(hub, "DELETE", f"{REPOSITORY}/blobs/{digest(BLOB)}").status == 405
    assert ask(hub, "DELETE", f"{REPOSITORY}/manifests/1.0.0").status == 202
    assert ask(hub, "GET", f"{REPOSITORY}/manifests/{wanted}").status == 200, "a tag's end is not its manifest's"
    assert ask(hub, "DELETE", f"{REPOSITORY}/manifests/{wanted}").status == 202
    assert ask(hub, "DELETE", f"{REPOSITORY}/blobs/{digest(BLOB)}").status == 202
    assert ask(hub, "HEAD", f"{REPOSITORY}/blobs/{digest(BLOB)}").status == 404


def test_referrers_are_found_by_subject_and_kind(hub: Any) -> None:
    subject = put_manifest(hub, "1.0.0")
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    one = put_manifest(hub, subject=about, artifactType="application/x-one", annotations={"a": "b"})
    two = put_manifest(hub, subject=about, artifactType="application/x-two")
    found = ask(hub, "GET", f"{REPOSITORY}/referrers/{subject}").json["manifests"]
    assert {item["digest"] for item in found} == {one, two}
    answer = ask(hub, "GET", f"{REPOSITORY}/referrers/{subject}?artifactType=application/x-one")
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert [(item["digest"], item["annotations"]) for item in answer.json["manifests"]] == [(one, {"a": "b"})]


def test_a_cluster_reads_and_never_writes(hub: Any) -> None:
    credential = hub.join("milan-01")
    wanted = put_manifest(hub, "1.0.0")
    for method, path in (
        ("POST", f"{REPOSITORY}/blobs/uploads/"),
        ("PUT", f"{REPOSITORY}/manifests/1.0.0"),
        ("DELETE", f"{REPOSITORY}/manifests/{wanted}"),
        ("DELETE", f"{REPOSITORY}/blobs/{digest(BLOB)}"),
    ):
        assert hub.ask(method, f"/v2/{path}", bearer=credential, body=b"").status == 405
        assert hub.ask(method, f"/v2/{path}", body=b"").status == 401
        assert hub.ask(method, f"/v2/{path}", bearer="wrong", body=b"").status == 401
    for path in (f"manifests/{wanted}", f"referrers/{wanted}", "tags/list", "manifests/1.0.0"):
        assert hub.ask("GET", f"/v2/{REPOSITORY}/{path}", bearer=credential).status == 404
    assert ask(hub, "GET", f"{REPOSITORY}/manifests/1.0.0").status == 200


def test_a_stranger_is_told_how_to_log_in(hub: Any) -> None:
    answer = hub.ask("GET", "/v2/")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="edgeferry"')
    login = base64.b64encode(f"ann:{OPERATOR}".encode()).decode()
    assert hub.ask("GET", "/v2/", headers={"Authorization": f"Basic {login}"}).status == 200
