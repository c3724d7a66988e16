"""``edgeferry model``: what is pushed is what the hub would pack, signed and described; a cut push goes on."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent.address import Origin
from agent.oci import Registry
from agent.oci_push import PIECE_BYTES, push_blob
from agent.wire.canonical import digest
from agent.wire.errors import EdgeferryError
from gitops.artifacts import ArtifactStore
from gitops.cli.model import model
from gitops.documents import parse
from gitops.packing import PackFile, pack
from gitops.tree import File
from tests.agent.http_server import Asked, Reply, serving
from tests.gitops.serve.conftest import Hub

DIGITS = Path(__file__).parents[3] / "gitops" / "demo" / "digits"


def run(*words: str, fails: bool = False) -> Result:
    result = CliRunner().invoke(model, list(words), env={"EDGEFERRY_TOKEN": "op-token"})
    assert fails or result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    hub = Hub(tmp_path / "hub")
    hub.server.start()
    yield hub
    hub.close()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    made = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "model.key"
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


def folder(root: Path) -> Path:
    (root / "saved" / "sub").mkdir(parents=True)
    (root / "saved" / "model.onnx").write_bytes((DIGITS / "digits-2.1.0.onnx").read_bytes())
    (root / "saved" / "sub" / "labels.json").write_bytes(b"[]")
    return root / "saved"


def test_what_is_pushed_is_what_the_hub_packs_of_the_same_files(tmp_path: Path, hub: Hub, key: Path) -> None:
    saved, place = folder(tmp_path), f"127.0.0.1:{hub.port}/models/reader"
    words = ["push", str(saved), "--name", "reader", "--version", "2.1.0", "--to", f"oci://{place}", "--hub"]
    words += ["--key", str(key), "--repository", str(tmp_path), "--output", "json"]
    first = json.loads(run(*words).output)
    files = [
        PackFile("model.onnx", 53110, lambda: (saved / "model.onnx").open("rb")),
        PackFile("sub/labels.json", 2, lambda: io.BytesIO(b"[]")),
    ]
    there = pack(ArtifactStore.open(tmp_path / "other"), "models/reader", files, "reader", "2.1.0")
    assert (first["digest"], first["sizeBytes"], first["ref"]) == (
        there.digest,
        there.size_bytes,
        "hub://models/reader",
    )
    assert hub.artifacts.manifest("models/reader", there.digest)
    again = json.loads(run(*words).output)
    assert again["sentBytes"] < 2000 < first["sentBytes"], "what is there is not sent again"
    version = tmp_path / "models" / "reader" / "versions" / "2.1.0"
    assert there.digest in (version / "version.yaml").read_text()
    listed = run("list", f"oci://{place}").output
    assert "2.1.0" in listed and there.digest in listed
    assert run("verify", str(saved), "--key", str(key.with_suffix(".pub")), "--signature", str(version / "model.sig"))


def test_a_version_document_that_was_written_is_faultless(tmp_path: Path, hub: Hub) -> None:
    saved = folder(tmp_path)
    place = f"oci://127.0.0.1:{hub.port}/models/reader"
    run(
        "push",
        str(saved),
        "--name",
        "reader",
        "--version",
        "2.1.0",
        "--to",
        place,
        "--hub",
        "--repository",
        str(tmp_path),
    )
    document = tmp_path / "models" / "reader" / "versions" / "2.1.0" / "version.yaml"
    data = document.read_bytes()
    parsed = parse(File("models/reader/versions/2.1.0/version.yaml", "0" * 40, len(data)), data, "main")
    assert not parsed.faults and [one.document.kind for one in parsed.documents] == ["ModelVersion"]


def test_a_folder_is_signed_and_verified_and_a_changed_one_is_not(tmp_path: Path, key: Path) -> None:
    saved = folder(tmp_path)
    run("sign", str(saved), "--key", str(key))
    run("verify", str(saved), "--key", str(key.with_suffix(".pub")))
    (saved / "sub" / "labels.json").write_bytes(b"[1]")
    wrong = run("verify", str(saved), "--key", str(key.with_suffix(".pub")), fails=True)
    assert isinstance(wrong.exception, EdgeferryError) and wrong.exception.code == "EF2212"


def test_an_onnx_file_tells_its_inputs_and_parameters(tmp_path: Path) -> None:
    found = json.loads(run("inspect", str(folder(tmp_path)), "--output", "json").output)["files"]["model.onnx"]
    assert (found["format"], found["precision"]) == ("onnx", "float32")
    assert found["parameters"] > 12_000
    assert [port["type"] for port in found["inputs"]] == ["float32"]
    assert "parameters" in run("inspect", str(DIGITS / "digits-2.1.0.onnx")).output


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    wrong = run("inspect", str(tmp_path), fails=True)
    assert isinstance(wrong.exception, EdgeferryError) and wrong.exception.code == "EF2220"


def test_a_cut_push_goes_on_where_the_registry_is() -> None:
    data = bytes(range(256)) * (2 * PIECE_BYTES // 256) + b"end"
    held = bytearray()
    cuts = iter([True, False, True, False, False, False])

    def answer(asked: Asked) -> Reply:
        head = {"location": "/v2/models/reader/blobs/uploads/1", "range": f"0-{max(0, len(held) - 1)}"}
        match asked.method:
            case "HEAD":
                return Reply(404)
            case "PATCH":
                first = int(asked.headers["content-range"].partition("-")[0])
                assert first == len(held), "each byte is sent once, where the registry has it"
                if next(cuts):
                    held.extend(asked.body[: len(asked.body) // 2])
                    return Reply(raw=b"")
                held.extend(asked.body)
                return Reply(202, headers=head)
            case "GET":
                return Reply(204, headers=head)
            case "POST":
                return Reply(202, headers=head)
        assert "digest=" in asked.path
        return Reply(201)

    told: list[int] = []
    with serving(answer) as server:
        registry = Registry(Origin.parse(server.url))
        assert push_blob(
            registry, "models/reader", digest(data), len(data), io.BytesIO(data), told.append, lambda _: None
        )
    assert (bytes(held), told[-1]) == (data, len(data))
