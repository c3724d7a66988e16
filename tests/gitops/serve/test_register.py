"""Registration: one token, one use, and everything an agent needs to trust the fleet."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from agent.wire.signature import JOIN, SigningKey
from agent.wire.trust import pin

KEY = SigningKey.generate().public
FACT = {"name": "arch", "value": "arm64", "measuredAt": "2026-11-24T01:02:03Z"}


def register(hub: Any, token: str = "join-token", **changes: Any) -> Any:
    asked = {"cluster": "milan-01", "publicKey": KEY, "facts": [FACT], **changes}
    return hub.ask("POST", "/v1/register", bearer=token, body=json.dumps(asked).encode())


def test_a_token_gives_a_credential_and_the_trust(hub: Any) -> None:
    hub.token("milan-01")
    answer = register(hub)
    assert answer.status == 200
    said = answer.json
    assert (said["cluster"], said["fleet"], said["leastSequence"], said["waitS"]) == ("milan-01", "fleet-1", 0, 30)
    trust = pin(said["trust"]["document"].encode(), said["trust"]["signatures"].encode())
    assert (trust.number, trust.fleet) == (said["trust"]["number"], "fleet-1") == (1, "fleet-1")
    assert hub.ask("GET", "/v1/overlay", bearer=said["credential"]).status == 404
    hub.publish("milan-01")
    assert hub.ask("GET", "/v1/overlay", bearer=said["credential"]).status == 200
    assert hub.woken.get(timeout=10) == "joined: milan-01"
    assert [fact.value for fact in hub.store.facts()["milan-01"]] == ["arm64"]


def test_the_least_sequence_is_the_newest_that_is_known(hub: Any) -> None:
    hub.publish("milan-01", sequence=7)
    hub.token("milan-01")
    assert register(hub).json["leastSequence"] == 7


def test_a_token_used_again_is_refused(hub: Any) -> None:
    hub.token("milan-01")
    credential = register(hub).json["credential"]
    again = register(hub, publicKey=SigningKey.generate().public)
    assert (again.status, again.json["code"]) == (401, "EF3102")
    assert "credential" not in again.json
    assert hub.ask("GET", "/v2/", bearer=credential).status == 200


def proof(key: SigningKey, body: bytes) -> dict[str, str]:
    return {"Edgeferry-Signature": base64.b64encode(key.sign(body, JOIN)).decode()}


def test_a_lost_answer_costs_no_token_for_who_has_the_key(hub: Any) -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    body = json.dumps({"cluster": "milan-01", "publicKey": key.public, "facts": []}).encode()

    def ask(signer: SigningKey, sent: bytes = body) -> Any:
        return hub.ask("POST", "/v1/register", bearer="join-token", body=sent, headers=proof(signer, sent))

    hub.token("milan-01")
    lost = ask(key).json["credential"]
    assert hub.ask("POST", "/v1/register", bearer="join-token", body=body).status == 401, "the public key is no secret"
    assert ask(other).json["code"] == "EF2004"
    assert ask(other, body.replace(key.public.encode(), other.public.encode())).json["code"] == "EF3102"
    again = ask(key)
    assert again.status == 200
    assert hub.ask("GET", "/v2/", bearer=again.json["credential"]).status == 200
    assert hub.ask("GET", "/v2/", bearer=lost).status == 401
    hub.store.revoke("milan-01", "ann", hub.now)
    assert ask(key).json["code"] == "EF3102", "a revoked cluster does not come back by its old token"


def test_a_used_token_ends_when_it_expires(hub: Any) -> None:
    key = SigningKey.generate()
    body = json.dumps({"cluster": "milan-01", "publicKey": key.public, "facts": []}).encode()
    hub.token("milan-01")
    for seconds, status in ((0, 200), (3599, 200), (1, 401)):
        hub.now += timedelta(seconds=seconds)
        answer = hub.ask("POST", "/v1/register", bearer="join-token", body=body, headers=proof(key, body))
        assert answer.status == status


@pytest.mark.parametrize("case", ["unknown", "missing", "of another cluster", "expired"])
def test_every_bad_token_is_refused_alike(hub: Any, case: str) -> None:
    hub.token("turin-01" if case == "of another cluster" else "milan-01")
    if case == "expired":
        hub.now += timedelta(hours=2)
    answer = register(hub, {"unknown": "other", "missing": ""}.get(case, "join-token"))
    assert (answer.status, answer.json["code"]) == (401, "EF3102")
    assert hub.store.registrations() == ()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", "EF2001", id="empty"),
        pytest.param(b"{}", "EF2001", id="no fields"),
        pytest.param(b"\xff\xfe", "EF2001", id="not UTF-8"),
        pytest.param(b"[" * 50_000, "EF2001", id="nested deep"),
        pytest.param(b'{"cluster":"a","cluster":"b"}', "EF2001", id="a key twice"),
        pytest.param(json.dumps({"cluster": "milan-01", "publicKey": "ssh-rsa AAAA"}).encode(), "EF3104", id="no key"),
        pytest.param(
            json.dumps({"cluster": "milan-01", "publicKey": KEY, "facts": [FACT] * 257}).encode(), "EF3104", id="facts"
        ),
        pytest.param(b" " * (65 << 10), "EF3105", id="too large"),
    ],
)
def test_a_bad_request_costs_no_token(hub: Any, body: bytes, code: str) -> None:
    hub.token("milan-01")
    assert hub.ask("POST", "/v1/register", bearer="join-token", body=body).json["code"] == code
    assert register(hub).status == 200


def test_joining_again_ends_the_old_credential(hub: Any) -> None:
    hub.token("milan-01")
    old = register(hub).json["credential"]
    hub.token("milan-01", "second")
    new = register(hub, "second").json["credential"]
    assert hub.ask("GET", "/v2/", bearer=old).status == 401
    assert hub.ask("GET", "/v2/", bearer=new).status == 200


def test_no_secret_stands_in_the_database(hub: Any) -> None:
    hub.token("milan-01")
    credential = register(hub).json["credential"]
    kept = b"".join(path.read_bytes() for path in hub.root.glob("hub.sqlite*"))
    assert credential.encode() not in kept
    assert b"join-token" not in kept
