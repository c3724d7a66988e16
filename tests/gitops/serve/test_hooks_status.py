"""Webhooks wake the hub; status tells people what runs where, and is honest about silence."""

from __future__ import annotations

import hashlib
import hmac
import queue
from datetime import timedelta
from typing import Any

import pytest

from agent.wire.report import EntryReport, Report, encode_report
from gitops.changes import Published
from gitops.serve.view import HubState, SourceState

BODY = b'{"ref": "refs/heads/main"}'


def signed(secret: str, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def silent(hub: Any) -> bool:
    try:
        hub.woken.get_nowait()
    except queue.Empty:
        return True
    return False


def test_a_hook_wakes_the_hub(hub: Any) -> None:
    assert hub.ask("POST", "/hooks/push", body=BODY).status == 202
    assert hub.woken.get(timeout=10) == "hook: push"
    assert hub.ask("POST", "/hooks/push/robotics", body=BODY).status == 202
    assert hub.woken.get(timeout=10) == "hook: robotics"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"X-Hub-Signature-256": "sha256=" + signed("s3cret")}, id="GitHub"),
        pytest.param({"X-Gitea-Signature": signed("s3cret")}, id="Gitea"),
        pytest.param({"X-Gitlab-Token": "s3cret"}, id="GitLab"),
    ],
)
def test_a_hook_with_its_secret_is_taken(make_hub: Any, headers: dict[str, str]) -> None:
    hub = make_hub(hook_secrets={"": "s3cret", "robotics": "other"})
    assert hub.ask("POST", "/hooks/push", body=BODY, headers=headers).status == 202
    assert hub.ask("POST", "/hooks/push/robotics", body=BODY, headers=headers).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": "sha256=" + signed("wrong")},
        {"X-Hub-Signature-256": "sha256=" + signed("s3cret", b"other body")},
        {"X-Hub-Signature": "sha1=0"},
        {"X-Gitlab-Token": "wrong"},
        {"X-Gitlab-Token": "s3cre\xe9"},
    ],
    ids=repr,
)
def test_a_hook_without_its_secret_wakes_nobody(make_hub: Any, headers: dict[str, str]) -> None:
    hub = make_hub(hook_secrets={"": "s3cret"})
    answer = hub.ask("POST", "/hooks/push", body=BODY, headers=headers)
    assert (answer.status, answer.json["code"]) == (401, "EF3110")
    assert hub.ask("POST", "/hooks/push/any", body=BODY, headers=headers).status == 401
    assert silent(hub)


def test_a_hook_with_an_unsafe_source_is_refused(hub: Any) -> None:
    for source in ("UPPER", "a%0ab", "x" * 54, "-a"):
        assert hub.ask("POST", f"/hooks/push/{source}", body=BODY).status == 404
    assert silent(hub)


def test_a_hook_that_is_too_large_is_refused(hub: Any) -> None:
    connection = hub.connect()
    connection.putrequest("POST", "/hooks/push")
    connection.putheader("Content-Length", str((25 << 20) + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def status(hub: Any, query: str = "") -> Any:
    answer = hub.ask("GET", "/v1/status" + query, bearer="op-token")
    assert answer.status == 200
    return answer.json


def put(hub: Any, *entries: EntryReport, number: int = 1, fault: str = "") -> None:
    report = Report("fleet-1", "milan-01", "i1", number, hub.now, sequence=2, entries=entries, fault_code=fault)
    hub.store.put_report("milan-01", report, encode_report(report), hub.now)


def published(sequence: int, **versions: str) -> Published:
    return Published(
        sequence, "c", "", {("model", name): (one, "sha256:" + "a" * 64) for name, one in versions.items()}
    )


def entry(health: str, name: str = "digits") -> EntryReport:
    wanted = "sha256:" + "a" * 64
    return EntryReport("model", name, "1.0.0", wanted, wanted, health, url="http://127.0.0.1:18000")  # type: ignore[arg-type]  # a table of texts


def test_a_signed_hook_is_taken_once(make_hub: Any) -> None:
    hub = make_hub(hook_secrets={"": "s3cret"})
    headers = {"X-Hub-Signature-256": "sha256=" + signed("s3cret", b"push 1"), "X-GitHub-Delivery": "1"}
    assert hub.ask("POST", "/hooks/push", body=b"push 1", headers=headers).status == 202
    again = hub.ask("POST", "/hooks/push", body=b"push 1", headers=headers | {"X-GitHub-Delivery": "2"})
    assert (again.status, again.json["code"]) == (409, "EF3162")
    headers = {"X-Hub-Signature-256": "sha256=" + signed("s3cret", b"push 2")}
    assert hub.ask("POST", "/hooks/push", body=b"push 2", headers=headers).status == 202


def test_status_is_for_people_with_the_operator_token(hub: Any) -> None:
    hub.join("milan-01")
    for token in ("", "wrong", hub.credentials["milan-01"]):
        assert hub.ask("GET", "/v1/status", bearer=token).status == 401


def test_status_shows_hub_sources_and_clusters(hub: Any) -> None:
    hub.state = HubState(
        head="f" * 40,
        sources=(SourceState("main", "b" * 40, "a" * 40, ("models/x.yaml:1:1: EF1003 …",)),),
        published={"milan-01": published(3), "turin-01": published(1, other="2.0.0")},
        faults=("EF3002 …",),
    )
    hub.join("milan-01")
    hub.store.touch("milan-01", hub.now)
    put(hub, entry("current"), entry("progressing", "other"))
    shown = status(hub)
    assert (shown["fleet"], shown["head"], shown["faults"]) == ("fleet-1", "f" * 40, ["EF3002 …"])
    assert shown["sources"][0] == {
        "name": "main",
        "revision": "b" * 40,
        "used": "a" * 40,
        "faults": ["models/x.yaml:1:1: EF1003 …"],
        "note": "",
    }
    milan, turin = shown["clusters"]
    assert (milan["joined"], milan["health"], milan["published"], milan["sequence"]) == (True, "progressing", 3, 2)
    assert (milan["seenAt"], milan["unknownSince"]) == ("2026-11-24T01:02:03Z", "")
    first = milan["entries"][0]
    assert (first["health"], first["url"]) == ("current", "http://127.0.0.1:18000")
    assert (turin["joined"], turin["health"], turin["published"]) == (False, "unknown", 1)
    assert [(one["name"], one["wantedVersion"], one["running"], one["health"]) for one in turin["entries"]] == [
        ("other", "2.0.0", "", "unknown")
    ]


def test_status_about_one_name_shows_what_belongs_to_it(hub: Any) -> None:
    hub.state = HubState(
        published={"milan-01": published(2, digits="1.0.0", other="1.0.0"), "turin-01": published(1, other="1.0.0")},
        named={"vision": frozenset({("model", "digits")}), "other": frozenset({("model", "other")})},
    )
    hub.join("milan-01")
    hub.store.touch("milan-01", hub.now)
    put(hub, entry("current"))

    def seen(about: str) -> dict[str, list[tuple[str, str]]]:
        shown = status(hub, f"?about={about}")["clusters"]
        return {one["name"]: [(entry["name"], entry["health"]) for entry in one["entries"]] for one in shown}

    assert seen("vision") == {"milan-01": [("digits", "current")]}
    assert seen("other") == {"milan-01": [("other", "progressing")], "turin-01": [("other", "unknown")]}
    assert seen("turin-01") == {"turin-01": [("other", "unknown")]}
    assert seen("digits") == {"milan-01": [("digits", "current")]}, "also what is declared no more, where it runs"
    answer = hub.ask("GET", "/v1/status?about=visoin", bearer="op-token")
    assert (answer.status, answer.json["code"]) == (404, "EF3135")
    assert "did you mean vision?" in answer.json["detail"]


@pytest.mark.parametrize(
    ("healths", "fault", "shown"),
    [
        (("current", "current"), "", "current"),
        (("current", "degraded"), "", "degraded"),
        (("progressing", "unknown"), "", "unknown"),
        (("current",), "EF2004", "degraded"),
        ((), "", "current"),
    ],
)
def test_a_cluster_is_as_well_as_its_worst_entry(hub: Any, healths: tuple[str, ...], fault: str, shown: str) -> None:
    hub.join("milan-01")
    hub.store.touch("milan-01", hub.now)
    put(hub, *(entry(health, f"m{n}") for n, health in enumerate(healths)), fault=fault)
    assert status(hub)["clusters"][0]["health"] == shown


def test_a_silent_cluster_is_unknown_since_it_was_last_heard(hub: Any) -> None:
    hub.join("milan-01")
    hub.store.touch("milan-01", hub.now)
    put(hub, entry("current"))
    hub.now += timedelta(seconds=601)
    shown = status(hub)["clusters"][0]
    assert (shown["health"], shown["unknownSince"]) == ("unknown", "2026-11-24T01:02:03Z")
    assert (shown["entries"][0]["health"], shown["entries"][0]["lastHealth"]) == ("unknown", "current")


def test_a_cluster_that_never_asked_is_unknown_since_it_joined(hub: Any) -> None:
    hub.join("milan-01")
    shown = status(hub)["clusters"][0]
    assert (shown["health"], shown["seenAt"], shown["unknownSince"]) == ("unknown", "", "2026-11-24T01:02:03Z")


def test_health_and_readiness(hub: Any) -> None:
    assert hub.ask("GET", "/healthz").status == 200
    assert hub.ask("GET", "/readyz").status == 200


def test_the_hub_is_not_ready_without_its_trust(make_hub: Any) -> None:
    hub = make_hub()
    del hub.trust
    answer = hub.ask("GET", "/readyz")
    assert (answer.status, answer.json["code"]) == (503, "EF3108")
    assert hub.ask("GET", "/healthz").status == 200


def test_unknown_addresses_and_methods_are_problems(hub: Any) -> None:
    assert hub.ask("GET", "/nowhere").json["code"] == "EF3103"
    answer = hub.ask("GET", "/hooks/push")
    assert (answer.status, answer.json["code"], answer.headers["content-type"]) == (
        405,
        "EF3111",
        "application/problem+json",
    )


def test_a_fault_of_the_hub_tells_nothing_of_it(make_hub: Any) -> None:
    hub = make_hub()
    hub.join("milan-01")
    del hub.trust
    hub.token("milan-01", "t")
    body = b'{"cluster":"milan-01","publicKey":"' + hub.keys["milan-01"].public.encode() + b'"}'
    answer = hub.ask("POST", "/v1/register", bearer="t", body=body)
    assert (answer.status, answer.json["code"]) == (500, "EF3112")
    assert b"attribute" not in answer.body
