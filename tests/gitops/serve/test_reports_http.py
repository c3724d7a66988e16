"""Reports over HTTP: signed by the cluster that sends them, or not taken."""

from __future__ import annotations

import base64
import gzip
import queue
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.wire.facts import Fact
from agent.wire.report import EntryReport, Event, Report, encode_report
from agent.wire.report_delta import since
from agent.wire.signature import RELEASE, REPORT, SigningKey

FACT = Fact("arch", "amd64", datetime(2026, 1, 2, tzinfo=UTC))


def report(hub: Any, number: int = 1, cluster: str = "milan-01", fleet: str = "fleet-1", **more: Any) -> bytes:
    return encode_report(Report(fleet, cluster, "i1", number, hub.now, **more))


def send(
    hub: Any,
    body: bytes,
    *,
    key: SigningKey | None = None,
    namespace: bytes = REPORT,
    encoding: str = "",
    sent: bytes = b"",
) -> Any:
    signature = base64.b64encode((key or hub.keys["milan-01"]).sign(body, namespace)).decode()
    headers = {"Edgeferry-Signature": signature, **({"Content-Encoding": encoding} if encoding else {})}
    return hub.ask("POST", "/v1/reports", bearer=hub.credentials["milan-01"], body=sent or body, headers=headers)


def entry(health: str) -> EntryReport:
    digest = "sha256:" + "a" * 64
    return EntryReport("model", "digits", "1.0.0", digest, digest, health)  # type: ignore[arg-type]  # a table of texts


@pytest.fixture(autouse=True)
def joined(hub: Any) -> None:
    hub.join("milan-01")


def test_a_signed_report_is_kept(hub: Any) -> None:
    body = report(hub, sequence=3, entries=(entry("current"),), events=(Event(1, hub.now, "switched", "model/digits"),))
    answer = send(hub, body)
    assert (answer.status, answer.body) == (204, b"")
    assert hub.store.latest_reports()["milan-01"].report.sequence == 3
    assert len(hub.store.events("milan-01", 0, 10)) == 1


def test_the_hub_wakes_only_for_what_matters(hub: Any) -> None:
    for number, health in enumerate(("progressing", "progressing", "current"), 1):
        assert send(hub, report(hub, number, entries=(entry(health),))).status == 204
    assert [hub.woken.get(timeout=10) for _ in range(2)] == ["report: milan-01"] * 2
    with pytest.raises(queue.Empty):
        hub.woken.get_nowait()


def test_a_report_sent_twice_counts_once(hub: Any) -> None:
    body = report(hub, events=(Event(1, hub.now, "switched", "model/digits"),))
    assert [send(hub, body).status for _ in range(3)] == [204] * 3
    assert len(hub.store.events("milan-01", 0, 10)) == 1


def test_a_report_may_say_only_what_changed(hub: Any) -> None:
    first = Report("fleet-1", "milan-01", "i1", 1, hub.now, entries=(entry("progressing"),), facts=(FACT,))
    second = Report("fleet-1", "milan-01", "i1", 2, hub.now, entries=(entry("current"),), facts=(FACT,))
    answer = send(hub, encode_report(first))
    assert answer.headers["edgeferry-reports"] == "base"
    assert send(hub, encode_report(since(second, first))).status == 204
    assert hub.store.latest_reports()["milan-01"].report == second
    assert send(hub, encode_report(since(second, first))).status == 204, "its answer was lost: sent again"
    third = Report("fleet-1", "milan-01", "i1", 4, hub.now)
    answer = send(hub, encode_report(since(third, Report("fleet-1", "milan-01", "i1", 3, hub.now))))
    assert (answer.status, answer.json["code"]) == (409, "EF3330")
    assert hub.store.latest_reports()["milan-01"].report == second


@pytest.mark.parametrize("case", ["another key", "another namespace", "other bytes", "no signature", "no base64"])
def test_a_bad_signature_is_refused(hub: Any, case: str) -> None:
    body = report(hub)
    if case == "another key":
        answer = send(hub, body, key=SigningKey.generate())
    elif case == "another namespace":
        answer = send(hub, body, namespace=RELEASE)
    elif case == "other bytes":
        answer = send(hub, body, sent=body.replace(b"i1", b"i2"))
    else:
        headers = {} if case == "no signature" else {"Edgeferry-Signature": "§§§".encode().decode("latin-1")}
        answer = hub.ask("POST", "/v1/reports", bearer=hub.credentials["milan-01"], body=body, headers=headers)
    assert (answer.status, answer.json["code"]) == (403, "EF2004")
    assert hub.store.latest_reports() == {}


@pytest.mark.parametrize("change", [{"cluster": "turin-01"}, {"fleet": "another"}], ids=str)
def test_a_report_of_another_cluster_or_fleet_is_refused(hub: Any, change: dict[str, str]) -> None:
    hub.join("turin-01")
    answer = send(hub, report(hub, **change))
    assert (answer.status, answer.json["code"]) == (403, "EF3106")
    assert hub.store.latest_reports() == {}


def test_signed_nonsense_is_refused(hub: Any) -> None:
    assert send(hub, b"{}").json["code"] == "EF2001"
    assert send(hub, report(hub).replace(b'"format":1', b'"format":9')).json["code"] == "EF2002"


def test_a_gzipped_report_is_taken(hub: Any) -> None:
    body = report(hub, sequence=5)
    assert send(hub, body, encoding="gzip", sent=gzip.compress(body)).status == 204
    assert hub.store.latest_reports()["milan-01"].report.sequence == 5


@pytest.mark.parametrize(
    ("sent", "encoding", "status", "code"),
    [
        pytest.param(gzip.compress(bytes(64 << 20)), "gzip", 413, "EF3105", id="gzip bomb"),
        pytest.param(gzip.compress(b"{}")[:-3], "gzip", 400, "EF3104", id="gzip cut short"),
        pytest.param(gzip.compress(b"{}") + b"tail", "gzip", 400, "EF3104", id="gzip with a tail"),
        pytest.param(b"plain", "gzip", 400, "EF3104", id="not gzip"),
        pytest.param(b"plain", "br", 400, "EF3104", id="unknown encoding"),
        pytest.param(bytes((1 << 20) + 1), "", 413, "EF3105", id="too large"),
    ],
)
def test_hostile_bodies_are_refused(hub: Any, sent: bytes, encoding: str, status: int, code: str) -> None:
    answer = send(hub, report(hub), encoding=encoding, sent=sent)
    assert (answer.status, answer.json["code"]) == (status, code)


def test_a_body_without_a_length_is_bounded_too(hub: Any) -> None:
    connection = hub.connect()
    headers = {"Authorization": f"Bearer {hub.credentials['milan-01']}"}
    chunks = (bytes(1 << 16) for _ in range(17))
    connection.request("POST", "/v1/reports", body=chunks, headers=headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_of_too_many_or_hostile_facts_those_that_count_are_kept_and_the_report_is(hub: Any) -> None:
    good = Fact("arch", "arm64", hub.now)
    hostile = Fact("memory.capacity", "16Gi", hub.now), Fact("os", "linux", hub.now + timedelta(days=9))
    many = tuple(Fact(f"f{n:04d}", "1", hub.now) for n in range(600))
    assert send(hub, report(hub, facts=(good, *hostile, *many))).status == 204
    kept = {fact.name: fact for fact in hub.store.facts()["milan-01"]}
    assert len(kept) == 512 and kept["arch"] == good and kept["os"].measured_at == hub.now
    assert "memory.capacity" not in kept


def test_a_person_gets_all_facts_with_their_times(hub: Any) -> None:
    send(hub, report(hub, facts=(Fact("arch", "arm64", hub.now),)))
    found = hub.ask("GET", "/v1/facts", bearer="op-token").json
    assert found["clusters"]["milan-01"] == [{"name": "arch", "value": "arm64", "measuredAt": found["at"]}]
    assert hub.ask("GET", "/v1/facts", bearer="x").json["code"] == "EF3101"
