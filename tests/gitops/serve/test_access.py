"""Every address, played by nobody, a hostile cluster, and people of every role: each gets its own, and no more."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from agent.wire.release import Artifact, Entry
from agent.wire.signature import SigningKey
from gitops.people_tokens import new_person
from gitops.roles import ROLES, Role
from gitops.serve.access import RULES, Rule, openapi, table
from gitops.store import Audit

ROOT = Path(__file__).parents[3]
PUBLIC = {"anyone", "join token", "hook"}


def person(hub: Any, role: str, hours: int = 1) -> str:
    secret, kept = new_person(f"a {role}", role, hours * 3600, hub.now)
    hub.store.add_person(kept, Audit(hub.now, "local", "token", role))
    return secret


def ask(hub: Any, rule: Rule, bearer: str, cluster: str = "milan-01") -> Any:
    path = rule.path.replace("{repository:path}", "models/secret").replace("{cluster}", cluster)
    path = re.sub(r"\{[a-z]+\}", "sha256:" + "a" * 64 if "/v2/" in path else "x", path)
    return hub.ask(rule.method, path, bearer=bearer, body=b"" if rule.method in ("POST", "PUT", "PATCH") else None)


def rules(*, private: bool) -> list[Any]:
    found = [one for one in RULES if (one.who not in PUBLIC and one.path != "/v1/certificate") == private]
    return [pytest.param(one, id=f"{one.method} {one.path}") for one in found]


def test_the_description_names_every_route_and_no_other(hub: Any) -> None:
    routes = {(method, route.path) for route in hub.app.routes for method in route.methods - {"HEAD"}}
    assert routes == {(one.method, one.path) for one in RULES}


def test_the_description_is_served_and_sound(hub: Any) -> None:
    said = hub.ask("GET", "/v1/openapi.json").json
    assert said["paths"] == json.loads(json.dumps(openapi("0")))["paths"] and said["openapi"] == "3.1.0"
    for path, methods in said["paths"].items():
        for one in methods.values():
            named = {parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"}
            assert named == set(re.findall(r"\{([a-z]+)\}", path))


def test_the_documentation_has_the_table() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert table() in text, "write gitops.serve.access.table() into docs/security.md"


@pytest.mark.parametrize("rule", rules(private=True))
@pytest.mark.parametrize("bearer", ["", "wrong", "é" * 10, "a.b", "op-token2"], ids=repr)
def test_nobody_gets_anything(hub: Any, rule: Rule, bearer: str) -> None:
    hub.join("milan-01")
    hub.publish("milan-01")
    answer = ask(hub, rule, bearer)
    assert answer.status == 401, answer.body
    assert b"milan" not in answer.body


@pytest.mark.parametrize("rule", rules(private=True))
def test_a_hostile_cluster_gets_nothing_of_others_or_of_people(hub: Any, rule: Rule) -> None:
    hub.join("milan-01")
    blob = "sha256:" + "a" * 64
    artifact = Artifact(blob, 3, "application/octet-stream", "hub://models/secret", "x")
    hub.publish(
        "milan-01", None, Entry("model", "secret", "1.0.0", "file", "sha256:" + "e" * 64, artifacts=(artifact,))
    )
    mallory = hub.join("mallory")
    hub.publish("mallory")
    answer = ask(hub, rule, mallory)
    if rule.who == "cluster" or rule.path == "/v2/":
        assert b"secret" not in answer.body and b"milan" not in answer.body
        assert answer.status != 500
    else:
        assert answer.status in (401, 403, 404, 405), answer.body
    forged = hub.access("milan-01", SigningKey.generate())
    assert ask(hub, rule, forged).status == 401


@pytest.mark.parametrize("rule", rules(private=True))
@pytest.mark.parametrize("role", get_args(Role))
def test_people_do_what_their_role_allows_and_no_more(hub: Any, rule: Rule, role: Role) -> None:
    hub.join("milan-01")
    hub.publish("milan-01")
    answer = ask(hub, rule, person(hub, role), "nobody-there")
    permission = rule.who.rpartition(" ")[2]
    if rule.who == "cluster":
        assert answer.status == 401
    elif permission in ROLES[role]:
        assert answer.status not in (401, 403, 500), answer.body
    elif rule.path != "/v1/commands":
        assert (answer.status, b"EF3160" in answer.body or "/v2/" in rule.path) == (403, True), answer.body


@pytest.mark.parametrize("role", ["viewer", "engineer", "resource-allocator"])
def test_an_order_needs_the_role(hub: Any, role: Role) -> None:
    order = {"verb": "pause", "object": "placement/x", "by": "me", "why": "because", "argument": ""}
    answer = hub.ask("POST", "/v1/commands", bearer=person(hub, role), body=json.dumps(order).encode())
    assert (answer.status, answer.json["code"]) == (403, "EF3160")


def test_a_blast_radius_is_approved_by_who_allocates(hub: Any) -> None:
    order = {"verb": "approve", "object": "fleet", "by": "me", "why": "because", "argument": "0123456789abcdef"}
    answer = hub.ask("POST", "/v1/commands", bearer=person(hub, "operator"), body=json.dumps(order).encode())
    assert answer.json["code"] == "EF3160"


def test_tokens_end_with_their_time_and_when_they_are_withdrawn(hub: Any) -> None:
    token = person(hub, "viewer")
    assert hub.ask("GET", "/v1/whoami", bearer=token).json["role"] == "viewer"
    (kept,) = hub.store.people()
    assert hub.ask("DELETE", f"/v1/people/{kept.id}", bearer="op-token").status == 204
    assert hub.ask("GET", "/v1/whoami", bearer=token).status == 401
    token = person(hub, "viewer")
    hub.now += timedelta(hours=1)
    assert hub.ask("GET", "/v1/whoami", bearer=token).status == 401


def test_no_token_stands_in_the_database(hub: Any) -> None:
    made = hub.ask("POST", "/v1/people", bearer="op-token", body=b'{"person": "ann", "role": "viewer"}').json
    joined = hub.ask("POST", "/v1/tokens", bearer="op-token", body=b'{"cluster": "milan-01"}').json
    kept = b"".join(path.read_bytes() for path in hub.root.glob("hub.sqlite*"))
    assert made["token"].encode() not in kept and joined["token"].encode() not in kept
    assert hub.ask("GET", "/v1/whoami", bearer=made["token"]).json["name"] == "ann"


def test_every_change_is_recorded_with_who_what_and_from_where(hub: Any) -> None:
    hub.join("milan-01")
    ann = hub.ask("POST", "/v1/people", bearer="op-token", body=b'{"person": "ann", "role": "administrator"}').json
    hub.ask("POST", "/v1/tokens", bearer=ann["token"], body=b'{"cluster": "turin-01", "labels": {"a": "b"}}')
    assert hub.ask("DELETE", "/v1/clusters/milan-01", bearer=ann["token"]).status == 204
    said = hub.ask("GET", "/v1/audit?limit=3", bearer="op-token").json
    found = [(one["who"], one["what"], one["about"], one["from"]) for one in said["items"]]
    assert found[0] == ("person/ann", "revoke", "cluster/milan-01", "127.0.0.1")
    assert found[2] == ("person/ann", "join token", "cluster/turin-01", "127.0.0.1")
    rest = hub.ask("GET", f"/v1/audit?before={said['next']}", bearer="op-token").json
    assert rest["next"] == "" and not {one["id"] for one in rest["items"]} & {one["id"] for one in said["items"]}


def test_clusters_come_in_pages_and_with_tags(hub: Any) -> None:
    for n in range(5):
        hub.join(f"c{n}")
    names, after = [], ""
    while True:
        page = hub.ask("GET", f"/v1/clusters?limit=2&after={after}", bearer="op-token")
        names += [one["name"] for one in page.json["items"]]
        after = page.json["next"]
        if not after:
            break
    assert names == [f"c{n}" for n in range(5)]
    tag = page.headers["etag"]
    again = hub.ask("GET", "/v1/clusters?limit=2&after=c3", bearer="op-token", headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/tokens", b"["),
        ("POST", "/v1/tokens", b"{}"),
        ("POST", "/v1/tokens", b'{"cluster": "../x"}'),
        ("POST", "/v1/tokens", b'{"cluster": "a", "labels": {"a b": "c"}}'),
        ("POST", "/v1/tokens", b'{"cluster": "a", "ttlS": -1}'),
        ("POST", "/v1/people", b'{"person": "a", "role": "god"}'),
        ("POST", "/v1/people", b'{"person": "", "role": "viewer"}'),
        ("GET", "/v1/clusters?limit=0", None),
        ("GET", "/v1/clusters?limit=1e9", None),
        ("GET", "/v1/audit?before=-1", None),
    ],
)
def test_what_is_no_request_gets_a_problem(hub: Any, method: str, path: str, body: bytes | None) -> None:
    answer = hub.ask(method, path, bearer="op-token", body=body)
    assert (answer.status, answer.json["code"]) == (400, "EF3104")
