"""The registry client: what is asked for arrives, no secret goes astray, and every refusal can be waited out."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.address import Origin
from agent.config import Config
from agent.content import Content
from agent.http import UnexpectedAnswer, Unreachable
from agent.oci import (
    OCI_MANIFEST,
    BadReference,
    NotInRegistry,
    OtherBytes,
    Registry,
    RegistryFault,
    RegistryRefuses,
    read_logins,
)
from agent.proof import Fixed
from agent.sources import Sources
from agent.stage import FILE, SiteBytes
from agent.wire.canonical import canonical, digest
from agent.wire.errors import Retry
from agent.wire.release import Artifact, Entry
from gitops.packing import PackFile, pack
from tests.agent.http_server import Asked, Reply, Server, serving
from tests.gitops.serve.conftest import Hub

BLOB = os.urandom(300_000)
NAME = "models/reader"
LOGIN = "Basic " + base64.b64encode(b"ann:s3cret").decode()


def registry(server: Server, **more: Any) -> Registry:
    return Registry(Origin.parse(server.url), **more)


def pull(client: Registry, first: int = 0, data: bytes = BLOB) -> bytes:
    """Return what comes, at its place."""
    with client.blob(NAME, digest(data), len(data), first) as stream:
        got = b"".join(iter(stream.read, b""))
        return data[: stream.first] + got


def ranged(asked: Asked, data: bytes = BLOB) -> Reply:
    span = asked.headers.get("range")
    if not span:
        return Reply(200, data)
    first, last = (int(part) for part in span.removeprefix("bytes=").split("-"))
    assert last == len(data) - 1, "nothing past the end is asked for"
    return Reply(206, data[first : last + 1], {"content-range": f"bytes {first}-{last}/{len(data)}"})


def test_a_manifest_is_asked_for_by_digest_and_verified() -> None:
    data = canonical({"layers": []})
    with serving(lambda _: Reply(200, data)) as server:
        assert registry(server).manifest(NAME, digest(data)) == data
        assert server.asked[0].path == f"/v2/{NAME}/manifests/{digest(data)}"
        assert OCI_MANIFEST in server.asked[0].headers["accept"]
        with pytest.raises(OtherBytes):
            registry(server).manifest(NAME, digest(b"other"))


def test_a_giant_manifest_is_cut_off() -> None:
    with serving(lambda _: Reply(200, bytes(5 << 20))) as server, pytest.raises(UnexpectedAnswer, match="more than"):
        registry(server).manifest(NAME, digest(b""))


def test_a_blob_comes_whole_and_from_the_middle_on() -> None:
    with serving(ranged) as server:
        client = registry(server)
        assert pull(client) == BLOB == pull(client, 100_000)
        assert "range" not in server.asked[0].headers
        assert server.asked[1].headers["range"] == f"bytes=100000-{len(BLOB) - 1}"
        assert server.connections == 1


def test_a_server_that_ignores_ranges_sends_all_again() -> None:
    with serving(lambda _: Reply(200, BLOB)) as server:
        assert pull(registry(server), 100_000) == BLOB


def test_a_server_that_refuses_ranges_is_asked_without() -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(416, b"x", {"content-length": "9999"}) if "range" in asked.headers else Reply(200, BLOB)

    with serving(answer) as server:
        assert pull(registry(server), 100_000) == BLOB


def test_another_range_than_asked_for_is_refused() -> None:
    reply = Reply(206, BLOB[5:], {"content-range": f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}"})
    with serving(lambda _: reply) as server, pytest.raises(UnexpectedAnswer, match="another range"):
        pull(registry(server), 100_000)


def test_a_compressed_answer_is_refused() -> None:
    reply = Reply(200, BLOB, {"content-encoding": "gzip"})
    with serving(lambda _: reply) as server, pytest.raises(UnexpectedAnswer):
        pull(registry(server))


def test_a_cut_answer_is_no_whole_one() -> None:
    with serving(lambda _: Reply(200, BLOB, cut_at=100_000)) as server, pytest.raises(Unreachable):
        pull(registry(server))


@pytest.mark.parametrize(
    ("status", "fault"),
    [(401, RegistryRefuses), (403, RegistryRefuses), (404, NotInRegistry), (429, RegistryFault), (503, RegistryFault)],
)
def test_refusals_can_be_waited_out(status: int, fault: type[Retry]) -> None:
    with serving(lambda _: Reply(status, b"{}", {"retry-after": "7"})) as server, pytest.raises(fault) as caught:
        pull(registry(server))
    assert isinstance(caught.value, Retry)
    assert caught.value.delay_s == (7 if status in (429, 503) else 60)


def test_a_kept_connection_that_died_is_opened_again() -> None:
    with serving(lambda _: Reply(200, BLOB, {"connection": "keep-alive"})) as server:
        client = registry(server)
        assert pull(client) == BLOB
        connection = client._line(client._origin)
        connection.interrupt()
        connection.resume()
        assert pull(client) == BLOB


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable):
            pull(Registry(Origin.parse(f"http://127.0.0.1:{taken.getsockname()[1]}")))


# ── tokens and logins ─────────────────────────────────────────────────────────────────────────────────────────────


def guarded(token: str = "t0ken", login: str = "", lives: int = 1 << 30) -> Callable[[Asked], Reply]:
    """A registry that wants a token for the repository; each token is good for ``lives`` requests."""
    left = {"uses": lives}

    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/token?"):
            assert "scope=repository%3Amodels%2Freader%3Apull" in asked.path and "service=reg" in asked.path
            if login and asked.headers.get("authorization") != login:
                return Reply(401, b"")
            left["uses"] = lives
            return Reply(200, json.dumps({"token": token}).encode())
        if asked.headers.get("authorization") == f"Bearer {token}" and left["uses"]:
            left["uses"] -= 1
            return ranged(asked)
        challenge = f'Bearer realm="http://{asked.headers["host"]}/token",service="reg",scope="x"'
        return Reply(401, b"{}", {"www-authenticate": challenge})

    return answer


def test_a_token_is_fetched_once_and_used_again() -> None:
    with serving(guarded()) as server:
        client = registry(server)
        assert pull(client) == BLOB == pull(client, 5)
        assert sum(asked.path.startswith("/token") for asked in server.asked) == 1


def test_an_expired_token_is_replaced_at_once() -> None:
    with serving(guarded(lives=1)) as server:
        client = registry(server)
        assert pull(client) == BLOB == pull(client)
        assert sum(asked.path.startswith("/token") for asked in server.asked) == 2


def test_a_login_buys_the_token_and_goes_nowhere_else() -> None:
    with serving(guarded(login=LOGIN)) as server:
        logins = read_logins(config_json(server.authority), "x")
        assert pull(registry(server, login=logins)) == BLOB
        used = {asked.path.split("?")[0] for asked in server.asked if asked.headers.get("authorization") == LOGIN}
        assert used == {"/token"}


def test_without_a_login_the_refusal_says_what_to_do() -> None:
    with serving(guarded(login=LOGIN)) as server, pytest.raises(RegistryRefuses, match="login"):
        pull(registry(server))


def test_a_basic_challenge_is_answered_with_the_login() -> None:
    def answer(asked: Asked) -> Reply:
        known = asked.headers.get("authorization") == LOGIN
        return ranged(asked) if known else Reply(401, b"", {"www-authenticate": 'Basic realm="x"'})

    with serving(answer) as server:
        assert pull(registry(server, login=read_logins(config_json(server.authority), "x"))) == BLOB
        with pytest.raises(RegistryRefuses):
            pull(registry(server))


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        'Bearer realm=""',
        'Bearer realm="file:///etc/passwd"',
        'Bearer realm="http://192.0.2.1/token"',
        "Negotiate",
    ],
)
def test_a_strange_challenge_is_refused(challenge: str) -> None:
    with serving(lambda _: Reply(401, b"", {"www-authenticate": challenge})) as server:
        with pytest.raises((RegistryRefuses, RegistryFault, BadReference)):
            pull(registry(server, login=lambda _: ("ann", "s3cret")))
        assert not any("authorization" in asked.headers for asked in server.asked)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a\\nb"}', b"x" * (2 << 20)])
def test_a_strange_token_is_refused(body: bytes) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return Reply(200, body)
        return Reply(401, b"", {"www-authenticate": f'Bearer realm="http://{asked.headers["host"]}/token"'})

    with serving(answer) as server, pytest.raises((RegistryFault, UnexpectedAnswer)):
        pull(registry(server))


def config_json(host: str) -> bytes:
    return json.dumps({"auths": {host: {"auth": base64.b64encode(b"ann:s3cret").decode()}}}).encode()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"auths": 3}', b'{"auths": {"a": {"auth": "?"}}}', b'{"auths": {"a": 1}}']
)
def test_a_broken_login_file_is_refused_and_not_quoted(data: bytes) -> None:
    with pytest.raises(BadReference) as caught:
        read_logins(data, "registries.json")
    assert "auths" not in str(caught.value)


def test_logins_are_found_as_docker_writes_them() -> None:
    logins = read_logins(config_json("https://index.docker.io/v1/"), "x")
    assert logins("registry-1.docker.io:443") == ("ann", "s3cret") and logins("other:443") is None


# ── redirects ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_redirect_to_another_host_gets_no_secret() -> None:
    with serving(ranged) as elsewhere:

        def answer(asked: Asked) -> Reply:
            assert asked.headers["authorization"] == "Bearer credential"
            return Reply(307, b"moved", {"location": f"{elsewhere.url}/bucket/blob?signature=x"})

        with serving(answer) as server:
            client = registry(server, authorization=lambda: "Bearer credential")
            assert pull(client) == BLOB == pull(client, 1000)
        assert all("authorization" not in asked.headers for asked in elsewhere.asked)
        assert elsewhere.asked[0].path == "/bucket/blob?signature=x"
        assert "range" in elsewhere.asked[1].headers


def test_a_redirect_within_the_registry_keeps_the_credential() -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/v2/"):
            return Reply(302, b"", {"location": "/data/blob"})
        return ranged(asked) if asked.headers.get("authorization") == "Bearer credential" else Reply(401)

    with serving(answer) as server:
        assert pull(registry(server, authorization=lambda: "Bearer credential")) == BLOB


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://192.0.2.1/x", "ftp://x/", "http://[", "http://a:b/", ""]
)
def test_a_redirect_to_where_it_may_not_lead_is_refused(location: str) -> None:
    with (
        serving(lambda _: Reply(302, b"", {"location": location})) as server,
        pytest.raises((RegistryFault, BadReference)),
    ):
        pull(registry(server))


def test_a_circle_of_redirects_ends() -> None:
    with serving(lambda asked: Reply(307, b"", {"location": asked.path})) as server:
        with pytest.raises(RegistryFault, match="redirects"):
            pull(registry(server))
        assert len(server.asked) == 6


# ── what a reference means ────────────────────────────────────────────────────────────────────────────────────────


def staged(state: Path, ref: str, data: bytes = BLOB, **settings: Any) -> bytes:
    config = Config("milan-01", "f-1", **settings)
    site = SiteBytes(Content(state / "content", 0), Sources(config, Fixed("credential"), state))
    entry = Entry(
        "model",
        "reader",
        "1.0.0",
        "file",
        "sha256:" + "e" * 64,
        artifacts=(Artifact(digest(data), len(data), FILE, ref, "m"),),
    )
    model = site.stage(entry, {}).model
    site.close()
    assert model is not None
    return model.read_bytes()


def test_the_hub_gets_the_credential(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        return ranged(asked) if asked.headers.get("authorization") == "Bearer credential" else Reply(401)

    with serving(answer) as server:
        assert staged(tmp_path, f"hub://{NAME}", hub=server.url) == BLOB
        assert server.asked[0].path == f"/v2/{NAME}/blobs/{digest(BLOB)}"


@pytest.mark.parametrize("kind", ["oci", "site", "folder"])
def test_hub_artifacts_may_stand_elsewhere_which_gets_no_credential(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "layout" / "blobs" / "sha256" / digest(BLOB).removeprefix("sha256:")
    path.parent.mkdir(parents=True)
    path.write_bytes(BLOB)
    with serving(ranged) as server:
        store = {
            "oci": f"oci://{server.authority}/mirror",
            "site": f"{server.url}/store/",
            "folder": str(tmp_path / "layout"),
        }
        assert staged(tmp_path / "state", f"hub://{NAME}", store=store[kind], hub="https://hub.example") == BLOB
        assert all("authorization" not in asked.headers for asked in server.asked)
        wanted = {
            "oci": [f"/v2/mirror/{NAME}/blobs/{digest(BLOB)}"],
            "site": [f"/store/blobs/{digest(BLOB).replace(':', '/')}"],
            "folder": [],
        }
        assert [asked.path for asked in server.asked] == wanted[kind]


def test_one_file_comes_from_a_web_server_over_redirects(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(302, b"", {"location": "/b%20c"}) if asked.path == "/a?x=1" else ranged(asked)

    with serving(answer) as server:
        assert staged(tmp_path, f"{server.url}/a?x=1") == BLOB
        assert server.asked[1].path == "/b%20c"


@pytest.mark.parametrize("ref", ["http://192.0.2.1/a", "https://user:pw@hub.example/a"])
def test_an_address_that_gives_secrets_or_bytes_away_is_refused(tmp_path: Path, ref: str) -> None:
    with pytest.raises(Exception, match="EF") as caught:
        staged(tmp_path, ref)
    assert "pw" not in str(caught.value)


def test_a_plain_registry_on_another_machine_must_be_allowed() -> None:
    origin = Origin.parse("http://192.0.2.1:5000")
    with pytest.raises(BadReference, match="insecure_registries"):
        Registry(origin)
    Registry(origin, plain_http=frozenset({"192.0.2.1:5000"}))


def test_logins_come_from_the_state_directory(tmp_path: Path) -> None:
    with serving(guarded(login=LOGIN)) as server:
        (tmp_path / "registries.json").write_bytes(config_json(server.authority))
        assert staged(tmp_path, f"oci://{server.authority}/{NAME}") == BLOB


# ── a real registry ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        pytest.skip("NOT CHECKED against a real registry: no docker-registry program here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "registry.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    libc = ctypes.CDLL(None)
    process = subprocess.Popen(
        [program, "serve", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),
    )
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, "docker-registry did not come up"
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def push(host: str, repository: str, data: bytes, media_type: str = "") -> str:
    """Push one blob or, with a media type, one manifest, as the specification says."""

    def send(method: str, url: str, body: bytes, kind: str = "application/octet-stream") -> Any:
        asked = urllib.request.Request(url, body, {"content-type": kind}, method=method)
        return urllib.request.urlopen(asked, timeout=30)

    if media_type:
        send("PUT", f"http://{host}/v2/{repository}/manifests/{digest(data)}", data, media_type)
    else:
        with send("POST", f"http://{host}/v2/{repository}/blobs/uploads/", b"") as begun:
            place = begun.headers["location"]
        place = place if place.startswith("http") else f"http://{host}{place}"
        send("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest(data)}", data)
    return digest(data)


def test_a_real_registry_is_spoken_to(tmp_path: Path, docker_registry: str) -> None:
    host = docker_registry
    config = push(host, NAME, b"{}")
    push(host, NAME, BLOB)
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.cncf.model.config.v1+json", "digest": config, "size": 2},
            "layers": [
                {
                    "mediaType": "application/vnd.cncf.model.weight.v1.raw",
                    "digest": digest(BLOB),
                    "size": len(BLOB),
                    "annotations": {"org.cncf.model.filepath": "model.onnx"},
                }
            ],
        }
    )
    push(host, NAME, manifest, OCI_MANIFEST)
    artifact = Artifact(digest(manifest), len(BLOB), OCI_MANIFEST, f"oci://{host}/{NAME}")
    entry = Entry("model", "reader", "1.0.0", "file", "sha256:" + "e" * 64, artifacts=(artifact,))
    content = Content(tmp_path / "state" / "content", 0)
    partial = tmp_path / "state" / "content" / "partial" / hashlib.sha256(BLOB).hexdigest()
    partial.write_bytes(BLOB[:100_000])
    partial.with_name(f"{partial.name}.mark").write_text("100000")
    told: list[int] = []
    staged = SiteBytes(content, Sources(Config("milan-01", "f-1"), Fixed(""), tmp_path / "state")).stage(
        entry, {}, told.append
    )
    assert staged.model is not None and staged.model.read_bytes() == BLOB
    assert told[0] == 100_000, "it went on where it was"
    client = Registry(Origin.parse(f"http://{host}"))
    with pytest.raises(NotInRegistry):
        client.manifest(NAME, digest(b"never pushed"))
    assert pull(client, len(BLOB) - 1) == BLOB


def test_what_refers_to_an_artifact_is_found_where_a_registry_knows_the_tag_schema_only(docker_registry: str) -> None:
    client = Registry(Origin.parse(f"http://{docker_registry}"))
    subject = push(docker_registry, NAME, BLOB)
    assert client.referrers(NAME, subject, "application/x") == ()  # docker-registry knows neither
    about = {"digest": digest(b"delta"), "size": 5, "artifactType": "application/x", "annotations": {"a": "b"}}
    listed = [about, {**about, "artifactType": "application/y"}, {"digest": "?"}, 3]
    tag = subject.replace(":", "-")
    with serving(
        lambda asked: Reply(200, canonical({"manifests": listed})) if tag in asked.path else Reply(404)
    ) as server:
        found = registry(server).referrers(NAME, subject, "application/x")
        assert [asked.path.partition("?")[0] for asked in server.asked] == [
            f"/v2/{NAME}/referrers/{subject}",
            f"/v2/{NAME}/manifests/{tag}",
        ]
    assert [(one.digest, dict(one.annotations)) for one in found] == [(digest(b"delta"), {"a": "b"})]


def test_a_real_hub_gives_what_the_clusters_release_names_and_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    hub = Hub(tmp_path / "hub")
    hub.server.start()
    try:
        credential = hub.join("milan-01")
        packed = pack(
            hub.artifacts, NAME, [PackFile("model.onnx", len(BLOB), lambda: io.BytesIO(BLOB))], "reader", "1.0.0"
        )
        entry = Entry("model", "reader", "1.0.0", "file", "sha256:" + "e" * 64, artifacts=(packed,))
        content = Content(tmp_path / "state" / "content", 0)
        config = Config("milan-01", "fleet-1", hub=hub.url)
        site = SiteBytes(content, Sources(config, Fixed(credential), tmp_path / "state"))
        with pytest.raises(NotInRegistry):
            site.stage(entry, {})
        hub.publish("milan-01", None, entry)
        told: list[int] = []

        def stop(bytes_here: int) -> None:
            told.append(bytes_here)
            if bytes_here > 100_000:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            site.stage(entry, {}, stop)
        model = site.stage(entry, {}, told.append).model
        assert model is not None and model.read_bytes() == BLOB
        assert told == sorted(told)
        site.close()
    finally:
        hub.close()
