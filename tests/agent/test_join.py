"""Joining: the key stays here, trust is pinned once, and what is interrupted can be done again."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.address import BadUrl
from agent.config import BadConfig, Config, load_config
from agent.fetch import open_transport
from agent.http import CertificateRefused, UnexpectedAnswer, Unreachable
from agent.join import AlreadyJoined, InsecureHub, JoinRefused, NotAHub, join, join_hubless
from agent.keys import NoAgentKey, agent_key, make_key, read_credential
from agent.proof import Fixed, HubProof
from agent.wire.errors import BadSignature, Malformed
from agent.wire.facts import Fact
from agent.wire.signature import SigningKey
from agent.wire.trust import Trust, decode_trust, paths, sign_trust
from gitops.serve.server import Tls
from tests.agent.http_server import Asked, Reply, serving
from tests.agent.signed_overlay import Overlay, key, link, trust
from tests.cluster.certificates import Authority
from tests.gitops.serve.conftest import Hub

NAME = "milan-01"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    hub = Hub(tmp_path / "hub")
    hub.server.start()
    yield hub
    hub.close()


def at(hub: Hub, state: Path, config: Config, **more: Any) -> HubProof:
    """Return the site's proof, by the hub's clock, which stands still."""
    return HubProof(state, config, agent_key(state), lambda: hub.now.timestamp(), lambda: 0.5, **more)


def files_of(state: Path) -> set[str]:
    return {str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()}


def test_a_cluster_joins_a_real_hub_and_gets_its_overlay(hub: Hub, tmp_path: Path) -> None:
    state = tmp_path / "state"
    hub.publish(NAME, sequence=7)
    facts = [Fact("arch", "arm64", datetime(2026, 11, 24, tzinfo=UTC))]
    config = join(state, f"{hub.url}/", NAME, hub.token(NAME), facts=facts, settings={"first_port": 19000})
    assert config == Config(NAME, "fleet-1", hub=hub.url, wait_s=30.0, first_port=19000, least_sequence=7)
    assert load_config(state) == config
    assert files_of(state) == {"agent.json", "key", "trust/1.json", "trust/1.json.sig"}
    registration = hub.store.registration(NAME)
    assert registration is not None and registration.key == agent_key(state).public
    assert [fact.value for fact in hub.store.facts()[NAME]] == ["arm64"]
    received = open_transport(config, at(hub, state, config), state).poll("", 0)
    assert received is not None and "release.json" in received.files


def test_secrets_are_for_the_owner_only(hub: Hub, tmp_path: Path) -> None:
    state = tmp_path / "state"
    join(state, hub.url, NAME, hub.token(NAME))
    for name, mode in (("", 0o700), ("key", 0o600), ("agent.json", 0o600)):
        assert stat.S_IMODE((state / name).stat().st_mode) == mode, name


def test_joining_again_keeps_key_and_trust(hub: Hub, tmp_path: Path) -> None:
    state = tmp_path / "state"
    join(state, hub.url, NAME, hub.token(NAME))
    before = {name: (state / name).read_bytes() for name in ("key", "trust/1.json")}
    join(state, hub.url, NAME, hub.token(NAME, "another token"))
    assert {name: (state / name).read_bytes() for name in before} == before


def test_a_join_whose_answer_was_lost_is_done_again_with_the_same_token(hub: Hub, tmp_path: Path) -> None:
    state, token = tmp_path / "state", hub.token(NAME)
    join(state, hub.url, NAME, token)
    for lost in ("agent.json", "trust/1.json"):
        (state / lost).unlink()
    assert join(state, hub.url, NAME, token) == load_config(state)
    assert len(files_of(state)) == 4
    with pytest.raises(JoinRefused):
        join(tmp_path / "thief", hub.url, NAME, token)


@pytest.mark.parametrize("lost", ["agent.json", "trust/1.json"])
def test_an_interrupted_join_is_done_again(hub: Hub, tmp_path: Path, lost: str) -> None:
    state = tmp_path / "state"
    join(state, hub.url, NAME, hub.token(NAME))
    (state / "agent.json").unlink()
    (state / lost).unlink(missing_ok=True)
    with pytest.raises(BadConfig, match="has not joined"):
        load_config(state)
    again = join(state, hub.url, NAME, hub.token(NAME, "another token"))
    assert load_config(state) == again and len(files_of(state)) == 4


def test_a_refused_token_leaves_no_settings_and_is_not_quoted(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(JoinRefused, match="edgeferry cluster token") as caught:
        join(tmp_path / "state", hub.url, NAME, "not-the-token")
    assert "not-the-token" not in str(caught.value)
    assert files_of(tmp_path / "state") == {"key"}


def test_a_state_directory_belongs_to_one_cluster(hub: Hub, tmp_path: Path) -> None:
    join(tmp_path / "state", hub.url, NAME, hub.token(NAME))
    with pytest.raises(AlreadyJoined, match="milan-01"):
        join(tmp_path / "state", hub.url, "turin-03", "token")


def test_a_state_directory_belongs_to_one_fleet(hub: Hub, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "1.json").write_bytes(link(1, "other")["trust/1.json"])
    (tmp_path / "1.json.sig").write_bytes(link(1, "other")["trust/1.json.sig"])
    join_hubless(state, NAME, tmp_path / "1.json", folder="/media/usb")
    with pytest.raises(AlreadyJoined, match="fleet"):
        join(state, hub.url, NAME, hub.token(NAME))
    assert load_config(state).fleet == "other"


def welcome(**changes: Any) -> dict[str, Any]:
    document, signatures = (link(1)[path].decode() for path in paths(1))
    said = {
        "cluster": NAME,
        "fleet": "fleet-1",
        "certificate": None,
        "trust": {"number": 1, "document": document, "signatures": signatures},
        "leastSequence": 0,
        "waitS": 30,
    }
    return {**said, **changes}


def test_a_known_trust_is_not_replaced_by_what_a_hub_says(tmp_path: Path) -> None:
    document, signatures = sign_trust(
        Trust("fleet-1", 1, (key("mallory").public,), (key("mallory").public,)), (key("mallory"),)
    )
    forged = {"number": 1, "document": document.decode(), "signatures": signatures.decode()}
    said = iter([welcome(), welcome(trust=forged)])
    with serving(lambda _: Reply(200, json.dumps(next(said)).encode())) as server:
        join(tmp_path, server.url, NAME, "t")
        join(tmp_path, server.url, NAME, "t")
    assert decode_trust((tmp_path / "trust/1.json").read_bytes(), "x") == trust(1)


NO_HUB: dict[str, tuple[Reply, type[Exception]]] = {
    "a web page": (Reply(200, b"<html>"), NotAHub),
    "nothing there": (Reply(404, b"not found"), NotAHub),
    "moved": (Reply(301, b"", {"location": "https://x/"}), NotAHub),
    "overloaded": (Reply(503, b""), UnexpectedAnswer),
    "another cluster's answer": (Reply(200, json.dumps(welcome(cluster="turin-03")).encode()), NotAHub),
    "another fleet's trust": (Reply(200, json.dumps(welcome(fleet="fleet-2")).encode()), NotAHub),
    "no trust": (Reply(200, json.dumps(welcome(trust=None)).encode()), NotAHub),
    "no certificate": (Reply(200, json.dumps(welcome(certificate={"certificate": "x"})).encode()), UnexpectedAnswer),
    "giant answer": (Reply(200, bytes(2 << 20)), UnexpectedAnswer),
    "unsigned trust": (
        Reply(200, json.dumps(welcome(trust={**welcome()["trust"], "signatures": ""})).encode()),
        BadSignature,
    ),
    "trust signed by others": (
        Reply(
            200,
            json.dumps(
                welcome(trust={**welcome()["trust"], "signatures": link(2)["trust/2.json.sig"].decode()})
            ).encode(),
        ),
        BadSignature,
    ),
}


@pytest.mark.parametrize(("reply", "fault"), NO_HUB.values(), ids=NO_HUB.keys())
def test_what_is_no_hub_is_a_coded_fault_and_leaves_no_settings(
    tmp_path: Path, reply: Reply, fault: type[Exception]
) -> None:
    with serving(lambda _: reply) as server, pytest.raises(fault):
        join(tmp_path / "state", server.url, NAME, "token")
    assert files_of(tmp_path / "state") == {"key"}


def test_nobody_there_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        join(tmp_path / "state", "http://127.0.0.1:9", NAME, "token")
    assert files_of(tmp_path / "state") == {"key"}


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://hub.example:8080"])
def test_a_token_is_not_sent_in_the_clear(tmp_path: Path, url: str) -> None:
    with pytest.raises(InsecureHub, match="--insecure"):
        join(tmp_path / "state", url, NAME, "token")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("url", ["hub.example", "", "https://u:p@hub.example", "https://"])
def test_a_bad_address_is_refused_before_anything_is_made(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadUrl):
        join(tmp_path / "state", url, NAME, "token")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["", "../x", "Milan", "a" * 54, "a/b", "-a"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfig, match="name of a cluster"):
        join(tmp_path / "state", "https://hub.example", name, "token")


@pytest.mark.parametrize("settings", [{"colour": "red"}, {"first_port": "x"}, {"look_s": -1}])
def test_wrong_settings_are_refused_before_the_token_is_used(hub: Hub, tmp_path: Path, settings: Any) -> None:
    token = hub.token(NAME)
    with pytest.raises(BadConfig):
        join(tmp_path / "state", hub.url, NAME, token, settings=settings)
    join(tmp_path / "state", hub.url, NAME, token)


def test_over_tls_the_hubs_certificate_must_be_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    authority.server("hub", "hub", ["127.0.0.1"])
    (tmp_path / "hub").mkdir()
    hub = Hub(tmp_path / "hub", tls=Tls(tmp_path / "pki" / "hub.crt", tmp_path / "pki" / "hub.key"))
    hub.server.start()
    try:  # this hub does not ask for certificates, as where a proxy ends TLS: the agent goes over to tokens
        url = f"https://127.0.0.1:{hub.port}"
        token = hub.token(NAME)
        with pytest.raises(CertificateRefused):
            join(tmp_path / "state", url, NAME, token)
        with pytest.raises(BadUrl, match="certificate"):
            join(tmp_path / "state", url, NAME, token, settings={"ca": str(tmp_path / "absent")})
        config = join(tmp_path / "state", url, NAME, token, settings={"ca": str(authority.certificate)})
        hub.publish(NAME)
        line = open_transport(config, at(hub, tmp_path / "state", config), tmp_path / "state")
        assert line.poll("", 0) is not None
        line.close()
    finally:
        hub.close()


# ── without a hub ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trust_file(tmp_path: Path) -> Path:
    for path, data in link(2).items():
        (tmp_path / Path(path).name).write_bytes(data)
    return tmp_path / "2.json"


def test_a_hubless_site_believes_the_trust_that_a_person_brings(trust_file: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = join_hubless(
        state, NAME, trust_file, git="https://git.example/fleet.git", git_ref="main", credential="site:secret"
    )
    assert config == load_config(state)
    assert (config.fleet, config.git, config.git_ref, config.hub) == (
        "fleet-1",
        "https://git.example/fleet.git",
        "main",
        "",
    )
    assert files_of(state) == {"agent.json", "credential", "key", "trust/2.json", "trust/2.json.sig"}
    assert read_credential(state) == "site:secret"


def test_a_site_with_a_folder_needs_no_credential(trust_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "usb"
    for path, data in Overlay().files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    config = join_hubless(tmp_path / "state", NAME, trust_file, folder=str(folder))
    assert "credential" not in files_of(tmp_path / "state")
    assert open_transport(config, Fixed(""), tmp_path / "state").poll("", 0) is not None


@pytest.mark.parametrize("more", [{}, {"git": "https://x/y", "folder": "/z"}], ids=["neither", "both"])
def test_exactly_one_way_must_be_named(trust_file: Path, tmp_path: Path, more: Any) -> None:
    with pytest.raises(BadConfig, match="exactly one"):
        join_hubless(tmp_path / "state", NAME, trust_file, **more)


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("2.json", b"", Malformed),
        ("2.json", link(1)["trust/1.json"], BadSignature),
        ("2.json.sig", b"", BadSignature),
        ("2.json.sig", None, BadConfig),
        ("2.json", None, BadConfig),
    ],
    ids=["empty", "another document", "no signatures", "signatures missing", "missing"],
)
def test_a_trust_file_that_does_not_prove_itself_is_refused(
    trust_file: Path, tmp_path: Path, name: str, data: bytes | None, fault: type[Exception]
) -> None:
    path = tmp_path / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(fault):
        join_hubless(tmp_path / "state", NAME, trust_file, folder="/x")
    assert not (tmp_path / "state" / "agent.json").exists()


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_made_once_and_never_overwritten(tmp_path: Path) -> None:
    first = make_key(tmp_path)
    assert make_key(tmp_path).public == first.public == agent_key(tmp_path).public
    (tmp_path / "key").write_bytes(b"rubbish")
    with pytest.raises(Malformed):
        make_key(tmp_path)
    assert (tmp_path / "key").read_bytes() == b"rubbish" and {one.name for one in tmp_path.iterdir()} == {"key"}


def test_a_missing_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoAgentKey, match="join again"):
        agent_key(tmp_path)


def test_the_private_key_is_never_sent(tmp_path: Path) -> None:
    asked: list[Asked] = []

    def answer(request: Asked) -> Reply:
        asked.append(request)
        return Reply(200, json.dumps(welcome()).encode())

    with serving(answer) as server:
        join(tmp_path, server.url, NAME, "token")
    sent = json.loads(asked[0].body)
    assert sent["publicKey"] == agent_key(tmp_path).public and asked[0].headers["authorization"] == "Bearer token"
    private = SigningKey.load((tmp_path / "key").read_bytes(), "x").dump().splitlines()[1]
    assert private not in asked[0].body
