"""Certificates of the hub's own authority: given at the join, renewed, replaced by tokens, nothing once revoked."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.config import Config
from agent.fetch import CredentialRefused, HubTransport, hub_connection
from agent.http import CertificateRefused
from agent.join import JoinRefused, join
from agent.keys import agent_key
from agent.pinning import WrongAuthority
from agent.proof import HubProof, certificate_dates, certificate_request, keep_certificate
from agent.wire.fields import write_time
from agent.wire.signature import SigningKey
from gitops.authority import CLIENT_LIFE, EARLY, Authority
from gitops.serve.server import Tls
from tests.gitops.serve.conftest import Hub

DAY_S = 86400
NAME = "milan-01"


class Site:
    """A joined site whose clock a test sets."""

    def __init__(self, hub: Hub, state: Path) -> None:
        self.hub, self.state, self.seconds = hub, state, hub.now.timestamp()
        url = f"https://127.0.0.1:{hub.port}"
        self.config = join(state, url, NAME, hub.token(NAME), ca_hash=hub.authority.hash)
        self.proof = HubProof(state, self.config, agent_key(state), lambda: self.seconds, lambda: 0.5)
        self.line = HubTransport(hub_connection(self.config, self.proof), self.proof)

    def until_refused(self) -> None:
        """Poll until the hub refuses: it looks who is registered once in a second."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                self.line.poll("", 0)
            except CredentialRefused:
                return
        raise AssertionError("the hub goes on answering")


def own_tls(root: Path, hosts: tuple[str, ...] = ("127.0.0.1",)) -> Tls:
    authority = Authority.open(root / "keys", create=True)
    key, certificate = authority.server(hosts, datetime.now(UTC))
    (root / "server.key").write_bytes(key)
    (root / "server.pem").write_bytes(certificate)
    return Tls(root / "server.pem", root / "server.key", None, authority.path)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    root = tmp_path / "hub"
    root.mkdir()
    hub = Hub(root, tls=own_tls(root))
    hub.now = datetime.now(UTC).replace(microsecond=0)  # TLS goes by the machine's clock
    hub.server.start()
    yield hub
    hub.close()


@pytest.fixture
def site(hub: Hub, tmp_path: Path) -> Iterator[Site]:
    hub.publish(NAME)
    site = Site(hub, tmp_path / "state")
    yield site
    site.line.close()


def test_the_certificate_is_the_identity_and_no_token_is_sent(site: Site) -> None:
    assert site.proof.headers() == {}
    assert site.line.poll("", 0) is not None
    assert certificate_dates(site.state) == (
        (site.hub.now - EARLY).timestamp(),
        (site.hub.now + CLIENT_LIFE).timestamp(),
    )
    assert not (site.state / "credential").exists()


def test_the_key_never_leaves_the_site(site: Site) -> None:
    everywhere = b"".join(path.read_bytes() for path in site.hub.root.rglob("*") if path.is_file())
    for file in ("key", "client.key"):
        assert (site.state / file).read_bytes().splitlines()[1] not in everywhere
        assert (site.state / file).stat().st_mode & 0o777 == 0o600


def test_a_certificate_is_renewed_at_two_thirds_of_its_life(site: Site) -> None:
    first = (site.state / "client.pem").read_bytes()
    site.seconds += 59 * DAY_S
    assert site.line.poll("", 0) is not None
    assert (site.state / "client.pem").read_bytes() == first
    site.seconds += 2 * DAY_S
    assert site.line.poll("", 0) is not None
    assert (site.state / "client.pem").read_bytes() != first
    assert site.proof.headers() == {}


@pytest.mark.parametrize("clock", ["right", "as it was"])
def test_a_site_that_slept_through_its_certificate_comes_back_by_its_key(site: Site, clock: str) -> None:
    """Where its clock stood still, too, the site shows the expired certificate and learns by the refusal."""
    key, long_ago = agent_key(site.state), site.hub.now - timedelta(days=400)
    issued = site.hub.authority.client(certificate_request(key), NAME, key.public, long_ago)
    dates = write_time(issued.start), write_time(issued.end)
    keep_certificate(site.state, key, (issued.pem, *dates, site.hub.authority.pem))
    site.seconds -= 0 if clock == "right" else 400 * DAY_S
    proof = HubProof(site.state, site.config, key, lambda: site.seconds, lambda: 0.5)
    line = HubTransport(hub_connection(site.config, proof), proof)
    assert line.poll("", 0) is not None
    line.poll("", 0)
    found = certificate_dates(site.state)
    assert found is not None and found[1] > site.hub.now.timestamp()
    assert proof.headers() == {}
    line.close()


def test_a_revoked_site_gets_no_certificate_and_no_overlay(site: Site) -> None:
    assert site.line.poll("", 0) is not None
    site.hub.store.revoke(NAME, "ann", site.hub.now)
    first = (site.state / "client.pem").read_bytes()
    site.until_refused()
    site.seconds += 70 * DAY_S
    site.until_refused()
    assert (site.state / "client.pem").read_bytes() == first


def test_a_site_whose_clock_is_wrong_signs_for_the_hubs_time(site: Site) -> None:
    (site.state / "client.pem").unlink()
    site.seconds -= 20 * 365 * DAY_S
    proof = HubProof(site.state, site.config, agent_key(site.state), lambda: site.seconds, lambda: 0.5)
    line = HubTransport(hub_connection(site.config, proof), proof)
    assert line.poll("", 0) is not None
    line.close()


def test_where_a_proxy_ends_tls_the_site_goes_over_to_tokens(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    root.mkdir()
    hub = Hub(root, tls=Tls(own_tls(root).certificate, own_tls(root).key))  # as such a proxy: it asks for nothing
    hub.server.start()
    hub.publish(NAME)
    site = Site(hub, tmp_path / "state")
    assert site.line.poll("", 0) is not None
    assert "Authorization" in site.proof.headers()
    site.line.close()
    hub.close()


def test_a_line_of_another_hub_joins_nothing(hub: Hub, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", create=True)
    token = hub.token(NAME)
    with pytest.raises(WrongAuthority, match="paste the whole line"):
        join(tmp_path / "state", f"https://127.0.0.1:{hub.port}", NAME, token, ca_hash=other.hash)
    assert not (tmp_path / "state" / "agent.json").exists()
    assert hub.store.registrations() == ()


def test_a_pinned_site_trusts_no_other_authority(site: Site, tmp_path: Path) -> None:
    root = tmp_path / "impostor"
    root.mkdir()
    impostor = Hub(root, tls=own_tls(root))
    impostor.server.start()
    config = Config(NAME, "fleet-1", hub=f"https://127.0.0.1:{impostor.port}")
    proof = HubProof(site.state, config, agent_key(site.state))
    line = HubTransport(hub_connection(config, proof), proof)
    with pytest.raises(CertificateRefused):
        line.poll("", 0)
    line.close()
    impostor.close()


def test_the_same_name_from_another_machine_is_refused(site: Site, tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{site.hub.port}"
    with pytest.raises(JoinRefused, match="--replace"):
        join(tmp_path / "thief", url, NAME, site.hub.token(NAME, "second"), ca_hash=site.hub.authority.hash)
    assert site.line.poll("", 0) is not None
    join(tmp_path / "heir", url, NAME, site.hub.token(NAME, "third", replace=True), ca_hash=site.hub.authority.hash)
    site.until_refused()


@pytest.mark.parametrize("case", ["of another key", "not signed", "nothing", "far too long"])
def test_a_request_that_does_not_prove_the_key_gets_no_certificate(site: Site, case: str) -> None:
    honest = certificate_request(agent_key(site.state))
    request = {
        "of another key": certificate_request(SigningKey.generate()),
        "not signed": honest[:-80] + honest[-70:],
        "nothing": "",
        "far too long": honest * 60,
    }[case]
    context = ssl.create_default_context(cafile=str(site.hub.authority.path))
    line = http.client.HTTPSConnection("127.0.0.1", site.hub.port, context=context, timeout=30)
    answer = site.hub.ask(
        "POST", "/v1/certificate", body=json.dumps({"cluster": NAME, "request": request}).encode(), connection=line
    )
    assert answer.status == 400
    line.close()
