"""Registration: one token, one use, and everything an agent needs to trust the fleet."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from agent.wire.access import LIFE_S, SKEW_S, sign_access
from agent.wire.signature import JOIN, SigningKey
from agent.wire.trust import pin

SIGNING = SigningKey.generate()
KEY = SIGNING.public
FACT = {"name": "arch", "value": "arm64", "measuredAt": "2026-11-24T01:02:03Z"}


def register(hub: Any, token: str = "join-token", **changes: Any) -> Any:
    asked = {"cluster": "milan-01", "publicKey": KEY, "facts": [FACT], **changes}
    return hub.ask("POST", "/v1/register", bearer=token, body=json.dumps(asked).encode())


def test_a_token_registers_a_key_and_gives_the_trust(hub: Any) -> None:
    hub.token("milan-01")
    answer = register(hub)
    assert answer.status == 200
    said = answer.json
    assert (said["cluster"], said["fleet"], said["leastSequence"], said["waitS"]) == ("milan-01", "fleet-1", 0, 30)
    trust = pin(said["trust"]["document"].encode(), said["trust"]["signatures"].encode())
    assert (trust.number, trust.fleet) == (said["trust"]["number"], "fleet-1") == (1, "fleet-1")
    assert said["certificate"] is None  # no TLS here: access tokens prove the key
    assert hub.ask("GET", "/v1/overlay", bearer=hub.access("milan-01", SIGNING)).status == 404
    hub.publish("milan-01")
    assert hub.ask("GET", "/v1/overlay", bearer=hub.access("milan-01", SIGNING)).status == 200
    assert hub.woken.get(timeout=10) == "joined: milan-01"
    assert [fact.value for fact in hub.store.facts()["milan-01"]] == ["arm64"]


def test_the_least_sequence_is_the_newest_that_is_known(hub: Any) -> None:
    hub.publish("milan-01", sequence=7)
    hub.token("milan-01")
    assert register(hub).json["leastSequence"] == 7


def test_a_token_used_again_is_refused(hub: Any) -> None:
    hub.token("milan-01")
    assert register(hub).status == 200
    again = register(hub, publicKey=SigningKey.generate().public)
    assert (again.status, again.json["code"]) == (401, "EF3102")
    assert hub.ask("GET", "/v2/", bearer=hub.access("milan-01", SIGNING)).status == 200


def proof(key: SigningKey, body: bytes) -> dict[str, str]:
    return {"Edgeferry-Signature": base64.b64encode(key.sign(body, JOIN)).decode()}


def test_a_lost_answer_costs_no_token_for_who_has_the_key(hub: Any) -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    body = json.dumps({"cluster": "milan-01", "publicKey": key.public, "facts": []}).encode()

    def ask(signer: SigningKey, sent: bytes = body) -> Any:
        return hub.ask("POST", "/v1/register", bearer="join-token", body=sent, headers=proof(signer, sent))

    hub.token("milan-01")
    assert ask(key).status == 200
    assert hub.ask("POST", "/v1/register", bearer="join-token", body=body).status == 401, "the public key is no secret"
    assert ask(other).json["code"] == "EF2004"
    assert ask(other, body.replace(key.public.encode(), other.public.encode())).json["code"] == "EF3102"
    again = ask(key)
    assert again.status == 200
    assert hub.ask("GET", "/v2/", bearer=hub.access("milan-01", key)).status == 200
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
        pytest.param(b" " * (65 << 10), "EF3105", id="too large"),
    ],
)
def test_a_bad_request_costs_no_token(hub: Any, body: bytes, code: str) -> None:
    hub.token("milan-01")
    assert hub.ask("POST", "/v1/register", bearer="join-token", body=body).json["code"] == code
    assert register(hub).status == 200


def test_another_machine_needs_a_token_that_replaces(hub: Any) -> None:
    hub.token("milan-01")
    other = SigningKey.generate()
    assert register(hub).status == 200
    hub.token("milan-01", "second")
    answer = register(hub, "second", publicKey=other.public)
    assert (answer.status, answer.json["code"]) == (409, "EF3151")
    assert hub.ask("GET", "/v2/", bearer=hub.access("milan-01", SIGNING)).status == 200
    hub.token("milan-01", "third", replace=True)
    assert register(hub, "third", publicKey=other.public).status == 200
    assert hub.ask("GET", "/v2/", bearer=hub.access("milan-01", SIGNING)).status == 401
    assert hub.ask("GET", "/v2/", bearer=hub.access("milan-01", other)).status == 200


@pytest.mark.parametrize("case", ["of another fleet", "of another key", "too old", "too long", "of the future", "cut"])
def test_an_access_token_is_refused(hub: Any, case: str) -> None:
    key = hub.join("milan-01") and hub.keys["milan-01"]
    now = int(hub.now.timestamp())
    token = {
        "of another fleet": lambda: sign_access(key, "fleet-2", "milan-01", now),
        "of another key": lambda: sign_access(SigningKey.generate(), "fleet-1", "milan-01", now),
        "too old": lambda: sign_access(key, "fleet-1", "milan-01", now - LIFE_S),
        "of the future": lambda: sign_access(key, "fleet-1", "milan-01", now + SKEW_S + 1),
        "too long": lambda: sign_access(key, "fleet-1", "milan-01", now) + "A" * 4000,
        "cut": lambda: sign_access(key, "fleet-1", "milan-01", now)[:-8],
    }[case]()
    answer = hub.ask("GET", "/v2/", bearer=token)
    assert answer.status == 401
    assert answer.headers["edgeferry-time"] == str(now)


def test_an_access_token_ends_with_its_time_and_its_registration(hub: Any) -> None:
    token = hub.join("milan-01")
    assert hub.ask("GET", "/v2/", bearer=token).status == 200
    hub.now += timedelta(seconds=LIFE_S)
    assert hub.ask("GET", "/v2/", bearer=token).status == 401
    assert hub.ask("GET", "/v2/", bearer=hub.access("milan-01")).status == 200
    hub.store.revoke("milan-01", "ann", hub.now)
    assert hub.ask("GET", "/v2/", bearer=hub.access("milan-01")).status == 401


def test_no_secret_stands_in_the_database(hub: Any) -> None:
    hub.token("milan-01")
    assert register(hub).status == 200
    kept = b"".join(path.read_bytes() for path in hub.root.glob("hub.sqlite*"))
    assert b"join-token" not in kept
