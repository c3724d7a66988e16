"""What is carried to a site: verified before it counts, and brought only once, however often it is interrupted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from agent.carried import folder, report_file, store, take_in
from agent.config import Config, dump_config
from agent.keys import agent_key, make_key
from agent.wire.canonical import digest
from agent.wire.carried import (
    BLOBS,
    HEAD,
    OVERLAY,
    SIGNATURE,
    Blob,
    CarriedDamaged,
    Head,
    decode_carried_report,
    encode_head,
)
from agent.wire.errors import EdgeferryError
from agent.wire.overlay import pack
from agent.wire.report import decode_report
from agent.wire.signature import CARRIED, RELEASE, REPORT, SigningKey, verify
from tests.agent.simulated_site import EPOCH, FLEET, Edge, model

BLOB = bytes(range(256)) * 40_000
CLUSTER = "milan-01"


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    one = Edge(tmp_path / "site")
    one.start()
    make_key(one.root)
    config = Config(CLUSTER, FLEET, folder=str(folder(one.root)), store=str(store(one.root)))
    (one.root / "agent.json").write_bytes(dump_config(config))
    return one


def cargo(
    edge: Edge, key: SigningKey | None = None, namespace: bytes = CARRIED, cluster: str = CLUSTER, blob: bytes = BLOB
) -> Path:
    overlay = pack(edge.release(model()).files)
    blobs = (Blob(digest(BLOB), len(BLOB)),)
    head = encode_head(Head(FLEET, cluster, edge.sequence, 1, EPOCH, digest(overlay), blobs))
    path = edge.root.parent / "stick.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (
            (HEAD, head),
            (SIGNATURE, (key or edge.signer).sign(head, namespace)),
            (OVERLAY, overlay),
            (BLOBS + digest(BLOB)[7:], blob),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_an_interrupted_import_goes_on_where_it_was(edge: Edge) -> None:
    file, here = cargo(edge), 0

    def interrupted(more: int) -> None:
        nonlocal here
        here += more
        if here > len(BLOB) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_in(edge.root, file, interrupted)
    assert not folder(edge.root).exists(), "nothing counts before all of it is here"
    told: list[int] = []
    found = take_in(edge.root, file, told.append)
    assert found.blobs == 1 and sum(told) == len(BLOB)
    assert told[0] > len(BLOB) // 4, "what came before was kept"
    assert (store(edge.root) / "blobs" / "sha256" / digest(BLOB)[7:]).read_bytes() == BLOB
    assert (folder(edge.root) / "release.json").exists()
    again = take_in(edge.root, file)
    assert (again.blobs, again.present) == (0, 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"key": SigningKey.generate()}, "EF2004", id="signed by a stranger"),
        pytest.param({"namespace": RELEASE}, "EF2004", id="signed for something else"),
        pytest.param({"cluster": "turin-01"}, "EF4440", id="for another cluster"),
        pytest.param({"blob": BLOB[:-1] + b"!"}, "EF4441", id="other bytes"),
        pytest.param({"blob": BLOB[:-1]}, "EF4441", id="too few bytes"),
    ],
)
def test_what_does_not_prove_itself_changes_nothing(edge: Edge, changes: dict[str, object], code: str) -> None:
    with pytest.raises(EdgeferryError) as refused:
        take_in(edge.root, cargo(edge, **changes))  # type: ignore[arg-type]  # a table of arguments
    assert refused.value.code == code
    assert not folder(edge.root).exists()


def test_a_file_cut_anywhere_is_refused(edge: Edge) -> None:
    file = cargo(edge)
    whole = file.read_bytes()
    for size in (0, 1, 511, 600, 2000, len(whole) // 3, len(whole) - len(BLOB) // 2):
        file.write_bytes(whole[:size])
        with pytest.raises(CarriedDamaged):
            take_in(edge.root, file)
    file.write_bytes(whole)
    assert take_in(edge.root, file).news


def test_a_report_carries_every_event_that_nobody_acknowledged(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    assert edge.site is not None
    from agent.courier import Courier, FolderPost
    from agent.speak import Voice, speak

    courier = Courier(FolderPost(edge.root), SigningKey.generate(), lambda: None)
    speak(edge.site, Voice(0, "test", acknowledges=False), courier, edge.instant)
    numbers = []
    for _ in range(2):
        raw, armored = decode_carried_report(report_file(edge.root, EPOCH), "report")
        verify(raw, armored, REPORT, (agent_key(edge.root).public,), "report")
        report = decode_report(raw)
        numbers.append(report.number)
        assert [one.number for one in report.events] == list(range(1, len(report.events) + 1))
    assert numbers[1] > numbers[0]
    courier.close()
