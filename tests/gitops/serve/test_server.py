"""The listener: who a certificate names, slow and greedy clients, and an orderly end."""

from __future__ import annotations

import base64
import http.client
import io
import os
import select
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key
from cryptography.x509.oid import NameOID

from agent.wire.canonical import digest
from agent.wire.release import Artifact, Entry
from agent.wire.report import Report, encode_report
from agent.wire.signature import REPORT, SigningKey
from gitops.serve import protocol
from gitops.serve.server import BadTls, ListenFailed, Server, Tls


class Authority:
    """A certificate authority in files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = Ed25519PrivateKey.generate()
        self.certificate = self._sign("authority", self.key, self.key.public_key(), authority=True)
        self.path = root / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, key: Any = None) -> tuple[Path, Path]:
        key = Ed25519PrivateKey.generate() if key is None else key
        certificate = self._sign(name, self.key, key.public_key())
        paths = self.root / f"{name}.pem", self.root / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths

    def _sign(self, name: str, by: Any, public: Any, *, authority: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return builder.sign(by, None)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls_hub(make_hub: Any, authority: Authority) -> Any:
    certificate, key = authority.issue("hub")
    return make_hub(tls=Tls(certificate, key, authority.path))


def client(hub: Any, authority: Authority, pair: tuple[Path, Path] | None = None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(authority.path))
    if pair is not None:
        context.load_cert_chain(*pair)
    return http.client.HTTPSConnection("localhost", hub.port, context=context, timeout=30)


def agent_key(key: SigningKey) -> Any:
    return load_ssh_private_key(key.dump(), None)


def test_a_certificate_with_the_registered_key_is_the_identity(tls_hub: Any, authority: Authority) -> None:
    tls_hub.join("milan-01")
    commit = tls_hub.publish("milan-01")
    connection = client(tls_hub, authority, authority.issue("milan-01", agent_key(tls_hub.keys["milan-01"])))
    for _ in range(3):
        assert tls_hub.ask("GET", "/v1/overlay", connection=connection).headers["etag"] == f'"{commit}"'
    body = encode_report(Report("fleet-1", "milan-01", "i1", 1, tls_hub.now))
    signature = base64.b64encode(tls_hub.keys["milan-01"].sign(body, REPORT)).decode()
    headers = {"Edgeferry-Signature": signature}
    assert tls_hub.ask("POST", "/v1/reports", body=body, headers=headers, connection=connection).status == 204
    connection.close()


@pytest.mark.parametrize("case", ["a name that is not registered", "another key", "a key of another kind"])
def test_a_certificate_is_refused_with(tls_hub: Any, authority: Authority, case: str) -> None:
    tls_hub.join("milan-01")
    tls_hub.publish("milan-01")
    pair = {
        "a name that is not registered": lambda: authority.issue("turin-01", agent_key(tls_hub.keys["milan-01"])),
        "another key": lambda: authority.issue("milan-01"),
        "a key of another kind": lambda: authority.issue("milan-01", ec.generate_private_key(ec.SECP256R1())),
    }[case]()
    connection = client(tls_hub, authority, pair)
    credential = tls_hub.credentials["milan-01"]
    assert tls_hub.ask("GET", "/v1/overlay", connection=connection).status == 401
    assert tls_hub.ask("GET", "/v1/overlay", bearer=credential, connection=connection).status == 401
    connection.close()


def test_a_certificate_of_another_authority_does_not_connect(
    tls_hub: Any, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    tls_hub.join("milan-01")
    foreign = Authority(tmp_path / "other").issue("milan-01", agent_key(tls_hub.keys["milan-01"]))
    connection = client(tls_hub, authority, foreign)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_hub.ask("GET", "/v1/overlay", connection=connection)
    connection.close()


def test_a_revoked_cluster_keeps_no_way_in_by_its_certificate(tls_hub: Any, authority: Authority) -> None:
    tls_hub.join("milan-01")
    tls_hub.publish("milan-01")
    connection = client(tls_hub, authority, authority.issue("milan-01", agent_key(tls_hub.keys["milan-01"])))
    assert tls_hub.ask("GET", "/v1/overlay", connection=connection).status == 200
    tls_hub.store.revoke("milan-01", "ann", tls_hub.now)
    assert tls_hub.ask("GET", "/v2/", connection=connection).status == 401
    assert tls_hub.ask("GET", "/v1/overlay", connection=connection).status == 401
    connection.close()


def test_a_credential_serves_where_there_is_no_certificate(tls_hub: Any, authority: Authority) -> None:
    tls_hub.join("milan-01")
    tls_hub.publish("milan-01")
    connection = client(tls_hub, authority)
    assert tls_hub.ask("GET", "/v1/overlay", connection=connection).status == 401
    answer = tls_hub.ask("GET", "/v1/overlay", bearer=tls_hub.credentials["milan-01"], connection=connection)
    assert answer.status == 200
    connection.close()


def test_a_large_download_over_tls_reaches_slow_readers_whole(tls_hub: Any, authority: Authority) -> None:
    data = os.urandom(20 << 20)
    blob = tls_hub.artifacts.put_blob(io.BytesIO(data)).digest
    tls_hub.join("milan-01")
    artifact = Artifact(blob, len(data), "application/octet-stream", "hub://models/big", "big.bin")
    tls_hub.publish(
        "milan-01", None, Entry("model", "big", "1.0.0", "file", "sha256:" + "e" * 64, artifacts=(artifact,))
    )
    got: list[str] = []

    def read() -> None:
        connection = client(tls_hub, authority)
        connection.connect()
        assert connection.sock is not None
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        headers = {"Authorization": f"Bearer {tls_hub.credentials['milan-01']}"}
        connection.request("GET", f"/v2/models/big/blobs/{blob}", headers=headers)
        response = connection.getresponse()
        got.append(digest(b"".join(iter(lambda: response.read(8192), b""))))
        connection.close()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert got == [blob] * 3


def raw(hub: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", hub.port), timeout=30)


def ended(connection: socket.socket) -> bytes:
    """Return what comes until the hub ends the connection."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    connection.close()
    return received


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /v1/ov", b"GET /v1/overlay HTTP/1.1\r\nhost: x\r\n", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /"],
    ids=repr,
)
def test_a_client_that_does_not_finish_its_headers_is_left(
    make_hub: Any, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEADERS_S", 0.2)
    monkeypatch.setattr("gitops.serve.server.KEEP_ALIVE_S", 1)
    connection = raw(make_hub())
    connection.sendall(start)
    ended(connection)


def test_a_body_that_does_not_arrive_is_not_waited_for(make_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitops.serve.bodies.IDLE_S", 0.2)
    connection = raw(make_hub())
    connection.sendall(b"POST /v1/register HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    answer = ended(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"EF3109" in answer


def test_a_client_that_does_not_read_is_left(make_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STALLED_S", 0.3)
    hub = make_hub()
    hub.join("milan-01")
    blob = hub.artifacts.put_blob(io.BytesIO(bytes(50 << 20))).digest
    artifact = Artifact(blob, 50 << 20, "application/octet-stream", "hub://models/big", "big.bin")
    hub.publish("milan-01", None, Entry("model", "big", "1.0.0", "file", "sha256:" + "e" * 64, artifacts=(artifact,)))
    connection = raw(hub)
    who = f"authorization: Bearer {hub.credentials['milan-01']}"
    connection.sendall(f"GET /v2/models/big/blobs/{blob} HTTP/1.1\r\nhost: x\r\n{who}\r\n\r\n".encode())
    # The hub resets the connection: the error stands at the socket without anything being read from it.
    left = select.poll()
    left.register(connection, select.POLLERR | select.POLLHUP)
    assert left.poll(20_000)
    connection.close()


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /" + b"x" * (40 << 10) + b" HTTP/1.1\r\nhost: x\r\n\r\n", id="a long line"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"y" * (40 << 10) + b"\r\n\r\n", id="a long header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 6000 + b"\r\n", id="many headers"),
    ],
)
def test_too_much_before_the_body_is_refused(hub: Any, request_: bytes) -> None:
    connection = raw(hub)
    try:
        connection.sendall(request_)
    except ConnectionError:
        pass
    assert ended(connection)[:12] in (b"HTTP/1.1 431", b"")
    assert hub.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "request_", [b"\0\0\0\0", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"]
)
def test_what_is_no_http_is_refused(hub: Any, request_: bytes) -> None:
    connection = raw(hub)
    connection.sendall(request_)
    assert ended(connection)[:12] in (b"HTTP/1.1 400", b"")


def test_requests_in_a_row_are_answered_in_order(hub: Any) -> None:
    connection = raw(hub)
    connection.sendall(
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    answers = ended(connection)
    assert answers.index(b"200 OK") < answers.index(b"404 Not Found")


def test_no_answer_names_the_server_or_its_clock(hub: Any) -> None:
    names = {name.lower() for name in hub.ask("GET", "/healthz").headers}
    assert names.isdisjoint({"server", "date"})


def test_an_address_in_use_is_a_coded_fault(hub: Any, make_hub: Any) -> None:
    with pytest.raises(ListenFailed) as refused:
        Server(hub.app, "127.0.0.1", hub.port)
    assert "EF3130" in str(refused.value)


def test_certificates_that_cannot_be_used_are_a_coded_fault(hub: Any, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("hub")
    _, other = authority.issue("other")
    (tmp_path / "text").write_text("no certificate")
    for tls in (Tls(tmp_path / "absent", key), Tls(certificate, other), Tls(certificate, key, tmp_path / "text")):
        with pytest.raises(BadTls):
            Server(hub.app, tls=tls)


def test_the_hub_stops_while_a_download_runs(make_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub()
    hub.join("milan-01")
    blob = hub.artifacts.put_blob(io.BytesIO(os.urandom(1 << 20))).digest
    artifact = Artifact(blob, 1 << 20, "application/octet-stream", "hub://models/big", "big.bin")
    hub.publish("milan-01", None, Entry("model", "big", "1.0.0", "file", "sha256:" + "e" * 64, artifacts=(artifact,)))
    connection = hub.connect()
    headers = {"Authorization": f"Bearer {hub.credentials['milan-01']}"}
    connection.request("GET", f"/v2/models/big/blobs/{blob}", headers=headers)
    response = connection.getresponse()
    stopping = threading.Thread(target=hub.server.stop)
    stopping.start()
    assert digest(response.read()) == blob
    stopping.join(30)
    assert not stopping.is_alive()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        hub.ask("GET", "/healthz")
