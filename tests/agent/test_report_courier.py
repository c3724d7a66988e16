"""Reports over real HTTP: signed, level-triggered, each event once and in order, whatever the hub answers."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.courier import SIGNATURE_HEADER, Courier, FolderPost, HubPost
from agent.http import Connection, Origin
from agent.outbox import pending
from agent.proof import Fixed
from agent.speak import DETAIL_MS, Voice, kept_report, speak
from agent.wire.report import Report, decode_report
from agent.wire.report_delta import ACCEPTS_HEADER, whole
from agent.wire.signature import REPORT, SigningKey, verify
from tests.agent.simulated_site import Busy, Edge, model

KEY = SigningKey.generate()


class Hub:
    """Takes reports; answers with ``status``."""

    def __init__(self) -> None:
        self.status = 204
        self.forgets = self.completes = False
        self.sizes: list[int] = []
        self.reports: list[Report] = []
        self.tokens: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                armored = base64.b64decode(self.headers[SIGNATURE_HEADER])
                verify(body, armored, REPORT, (KEY.public,), "report")
                hub.tokens.append(self.headers["Authorization"])
                report = decode_report(body)
                hub.sizes.append(len(body))
                refused = bool(report.base) and hub.forgets
                answer = b'{"code": "EF3330", "detail": "send it whole"}' if refused else b""
                if hub.status == 204 and not refused:
                    hub.reports.append(whole(report, hub.reports[-1] if hub.reports else None))
                self.send_response(409 if refused else hub.status)
                self.send_header("Content-Type", "application/problem+json")
                self.send_header("Content-Length", str(len(answer)))
                if hub.completes:
                    self.send_header(ACCEPTS_HEADER, "base")
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    one = Hub()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path / "site")


@pytest.fixture
def courier(hub: Hub) -> Iterator[Courier]:
    one = Courier(HubPost(Connection(Origin.parse(hub.url)), Fixed("the-credential")), KEY, lambda: None)
    yield one
    one.close()


def voice() -> Voice:
    return Voice(60_000, "0.1.0")


def say(edge: Edge, mouth: Voice, courier: Courier) -> None:
    assert edge.site is not None
    speak(edge.site, mouth, courier, edge.instant)
    courier.settle(20)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_report_says_what_runs_and_is_signed_with_the_agents_key(edge: Edge, hub: Hub, courier: Courier) -> None:
    edge.settle(edge.release(model()))
    say(edge, voice(), courier)
    (report,) = hub.reports
    (entry,) = report.entries
    assert (entry.digest, entry.health, entry.url) == (model()[0].digest, "current", "http://127.0.0.1/digits")
    assert (report.sequence, report.cluster, report.reads) == (1, "milan-01", ("1",))
    assert {fact.name for fact in report.facts} == {"arch", "os", "platform"}
    assert hub.tokens == ["Bearer the-credential"]


def test_a_quiet_site_says_nothing_until_its_slow_beat(edge: Edge, hub: Hub, courier: Courier) -> None:
    edge.settle(edge.release(model()))
    mouth = voice()
    for _ in range(20):
        edge.look()
        say(edge, mouth, courier)
    assert len(hub.reports) == 1
    edge.uptime_ms += 60_000
    edge.look()
    say(edge, mouth, courier)
    assert [one.number for one in hub.reports] == [1, 2]


def test_a_beat_says_only_what_changed_where_the_hub_completes_reports(edge: Edge, hub: Hub, courier: Courier) -> None:
    hub.completes = True
    edge.settle(edge.release(*(model(f"m{number}") for number in range(20))))
    mouth = voice()
    for _ in range(3):
        edge.uptime_ms += 60_000
        edge.look()
        say(edge, mouth, courier)
    assert len(hub.reports) == 3 and hub.sizes[2] < 1000 < hub.sizes[0]
    assert hub.reports[2].entries == hub.reports[0].entries and len(hub.reports[2].entries) == 20
    assert len(hub.reports[2].artifacts) == 20


def test_a_hub_that_forgot_gets_the_whole_at_once(edge: Edge, hub: Hub, courier: Courier) -> None:
    hub.completes = True
    edge.settle(edge.release(model()))
    mouth = voice()
    for _ in range(2):
        edge.uptime_ms += 60_000
        edge.look()
        say(edge, mouth, courier)
        hub.forgets = True
    assert [one.number for one in hub.reports] == [1, 2] and courier.fault is None


def test_a_hub_that_knows_no_differences_gets_none(edge: Edge, hub: Hub, courier: Courier) -> None:
    edge.settle(edge.release(model()))
    mouth = voice()
    for _ in range(2):
        edge.uptime_ms += 60_000
        edge.look()
        say(edge, mouth, courier)
    assert len(hub.reports) == 2 and len(hub.reports[1].entries) == 1


def test_each_event_arrives_once_and_in_order_and_is_then_forgotten(edge: Edge, hub: Hub, courier: Courier) -> None:
    mouth = voice()
    edge.start()
    for version in ("1.0.0", "2.0.0"):
        edge.look(edge.release(model(version=version)))
        for _ in range(20):
            edge.look()
            say(edge, mouth, courier)
    say(edge, mouth, courier)
    numbers = [event.number for report in hub.reports for event in report.events]
    assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
    assert numbers == sorted(numbers)
    assert edge.site is not None and not pending(edge.site.state)


def test_events_that_could_not_be_sent_come_after_a_restart(edge: Edge, hub: Hub, courier: Courier) -> None:
    hub.status = 503
    edge.settle(edge.release(model()))
    say(edge, voice(), courier)
    until(lambda: courier.fault is not None)
    assert not hub.reports
    hub.status = 204
    edge.start()
    edge.look()
    second = Courier(HubPost(Connection(Origin.parse(hub.url)), Fixed("")), KEY, lambda: None)
    say(edge, voice(), second)
    until(lambda: bool(hub.reports))
    assert [event.number for event in hub.reports[0].events] == [1, 2, 3, 4]
    assert hub.reports[0].number > 1, "a number is never used twice"
    second.close()


def test_a_hub_that_is_away_holds_up_nothing_and_is_left_alone_for_a_while(edge: Edge, tmp_path: Path) -> None:
    closed = Courier(HubPost(Connection(Origin.parse("http://127.0.0.1:9")), Fixed("")), KEY, lambda: None)
    edge.settle(edge.release(model()))
    say(edge, voice(), closed)
    until(lambda: closed.fault is not None)
    assert closed.fault is not None and closed.fault.code == "EF4020" and not closed.idle
    assert edge.serves("model", "digits") == "1.0.0"
    closed.close()


def test_progress_and_wording_alone_are_told_once_in_a_while(edge: Edge, hub: Hub, courier: Courier) -> None:
    edge.settle(edge.release(model()))
    mouth = voice()
    say(edge, mouth, courier)
    edge.bytes.fault = Busy("no link")
    edge.look(edge.release(model(version="2.0.0")))
    say(edge, mouth, courier)
    edge.look()
    say(edge, mouth, courier)
    told = len(hub.reports)
    edge.bytes.fault = Busy("another wording")
    assert edge.site is not None
    edge.site.staging.hurry()
    until(lambda: "another" in edge.reports()["model/digits"].message)
    edge.look()
    say(edge, mouth, courier)
    assert len(hub.reports) == told
    edge.uptime_ms += DETAIL_MS
    edge.look()
    say(edge, mouth, courier)
    assert hub.reports[-1].entries[0].message == "another wording"


def test_without_a_hub_the_report_lies_signed_in_a_folder_and_is_written_only_when_it_changed(edge: Edge) -> None:
    edge.settle(edge.release(model()))
    folder = Courier(FolderPost(edge.root), KEY, lambda: None)
    mouth = Voice(0, "0.1.0", acknowledges=False)
    say(edge, mouth, folder)
    path = edge.root / "report" / "report.json"
    verify(path.read_bytes(), path.with_name("report.json.sig").read_bytes(), REPORT, (KEY.public,), "report")
    assert [event.kind for event in decode_report(path.read_bytes()).events][-1] == "committed"
    before = path.stat().st_mtime_ns
    for _ in range(10):
        edge.uptime_ms += 60_000
        edge.look()
        say(edge, mouth, folder)
    assert path.stat().st_mtime_ns == before
    assert edge.site is not None and pending(edge.site.state), "nobody said that they arrived"
    folder.close()


def test_no_secret_stands_in_a_report(edge: Edge, hub: Hub, courier: Courier) -> None:
    edge.settle(edge.release(model()))
    say(edge, voice(), courier)
    assert edge.site is not None
    assert b"the-credential" not in kept_report(edge.site.state)
    assert json.loads(kept_report(edge.site.state))["entries"][0]["name"] == "digits"
