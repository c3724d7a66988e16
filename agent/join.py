"""Joining a fleet: a key is made here, trust is pinned, and the settings are written last.

An interrupted join leaves no ``agent.json``, so it is simply done again, also with the same token: the key proves
who asks. Nothing secret is printed or sent but the join token; the hub answers with a certificate for the key where TLS
ends at the hub.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent import durable
from agent.address import Origin
from agent.config import BadConfig, Config, dump_config, load_config, read_config
from agent.fetch import hub_connection
from agent.git import checked_url
from agent.http import Answer, UnexpectedAnswer, problem_of
from agent.keys import make_key
from agent.layout import CONFIG, CREDENTIAL, HUB_AUTHORITY, TRUST
from agent.pinning import pinned_authority
from agent.proof import HubProof, certificate_request, keep_certificate, read_certificate
from agent.wire.canonical import Json, canonical
from agent.wire.errors import Malformed, Stop, UnsupportedFormat
from agent.wire.facts import Fact, encode_fact
from agent.wire.fields import Fields
from agent.wire.signature import JOIN
from agent.wire.trust import Trust, decode_trust, paths, pin

_MOST_ANSWER_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,51}[a-z0-9])?\Z")

Setting = str | int | float | Sequence[str]


class JoinRefused(Stop):
    """The hub does not take the join token for this cluster."""

    code = "EF4030"


class AlreadyJoined(Stop):
    """This state directory belongs to another cluster or another fleet."""

    code = "EF4031"


class InsecureHub(Stop):
    """The hub's address is plain HTTP to another machine: the token would be read on the way."""

    code = "EF4032"


class NotAHub(Stop):
    """What answered is no hub, or answers for another cluster."""

    code = "EF4033"


@dataclass(frozen=True, slots=True)
class _Welcome:
    """The hub's answer to a registration."""

    fleet: str
    certificate: tuple[str, str, str, str] | None
    trust: Trust
    document: bytes
    signatures: bytes
    least_sequence: int
    wait_s: int


def join(
    state: Path,
    hub: str,
    cluster: str,
    token: str,
    *,
    facts: Sequence[Fact] = (),
    settings: Mapping[str, Setting] | None = None,
    insecure: bool = False,
    ca_hash: str = "",
) -> Config:
    """Register this cluster at a hub and write its settings.

    Joining again under the same name is allowed, as after the hub lost its registrations: the key stays, and
    trust only goes on from where it is.

    Args:
        state: made where it is absent, for its owner only.
        hub: base URL.
        cluster: name of this cluster.
        token: join token; while it lasts, it may be used again from this state directory.
        facts: what the hub should know from the start.
        settings: more fields of ``Config``, by name.
        insecure: allow plain HTTP to another machine.
        ca_hash: ``sha256:…`` of the hub's own certificate authority, which alone is trusted then; empty where the
            system's authorities vouch for the hub.

    Raises:
        AlreadyJoined, InsecureHub, JoinRefused, WrongAuthority, NotAHub, BadUrl, BadConfig: a person must change
            something.
        BadSignature: the hub's trust document does not prove itself.
        Retry: the hub did not answer; join again, with the same token.
    """
    origin = Origin.parse(hub)
    if origin.scheme == "http" and not origin.loopback and not insecure:
        raise InsecureHub("plain HTTP to another machine", where=hub, do="use https, or --insecure on a link you trust")
    draft = _settled(Config(cluster, "?", hub=hub.rstrip("/")), settings)
    _begin(state, cluster)
    key = make_key(state)
    if ca_hash:
        durable.write(state / HUB_AUTHORITY, pinned_authority(origin, ca_hash), 0o644)
    asked: dict[str, Json] = {
        "cluster": cluster,
        "publicKey": key.public,
        "facts": [encode_fact(fact) for fact in facts],
    }
    if origin.scheme == "https":
        asked["request"] = certificate_request(key)
    body = canonical(asked)
    connection = hub_connection(draft, HubProof(state, draft, key))
    headers = {
        "Authorization": f"Bearer {_clean(token)}",
        "Content-Type": "application/json",
        "Edgeferry-Signature": base64.b64encode(key.sign(body, JOIN)).decode(),
    }
    try:
        answer = connection.ask("POST", "/v1/register", headers, body, most_bytes=_MOST_ANSWER_BYTES)
    finally:
        connection.close()
    welcome = _read(answer, cluster, f"{connection.origin}/v1/register")
    _keep_trust(state, welcome.trust, welcome.document, welcome.signatures)
    if welcome.certificate is not None:
        keep_certificate(state, key, welcome.certificate)
    wait_s = draft.wait_s if settings and "wait_s" in settings else float(welcome.wait_s)
    config = replace(draft, fleet=welcome.fleet, least_sequence=welcome.least_sequence, wait_s=wait_s)
    durable.write(state / CONFIG, dump_config(config))
    return config


def join_hubless(
    state: Path,
    cluster: str,
    trust: Path,
    *,
    git: str = "",
    git_ref: str = "",
    folder: str = "",
    reports: str = "",
    credential: str = "",
    settings: Mapping[str, Setting] | None = None,
) -> Config:
    """Join a fleet that has no hub: overlays come from a Git host or from a folder.

    The hub cannot know this agent's key; its fingerprint is ``make_key(state).fingerprint``, for people.

    Args:
        state: made where it is absent, for its owner only.
        cluster: name of this cluster.
        trust: ``<n>.json`` of the fleet repository, its ``.sig`` beside it, brought by a person: it is believed.
        git: URL of the fleet repository; empty where ``folder`` is given.
        git_ref: branch; empty for the cluster's own.
        folder: directory with the overlay, or with a checkout of the fleet repository.
        reports: URL of the report repository; empty for none.
        credential: ``USER:PASSWORD`` for the Git host; empty for none.
        settings: more fields of ``Config``, by name.

    Raises:
        AlreadyJoined, BadConfig: a person must change something.
        BadSignature, Malformed: the trust document does not prove itself.
    """
    if bool(git) == bool(folder):
        raise BadConfig("exactly one of git and folder says where overlays come from", do="give --git or --folder")
    try:
        document, signatures = trust.read_bytes(), trust.with_name(f"{trust.name}.sig").read_bytes()
    except OSError as error:
        raise BadConfig(f"no trust document: {error.strerror}", where=str(error.filename), do=_TRUST_ADVICE) from None
    pinned = pin(document, signatures, str(trust))
    config = Config(cluster, pinned.fleet, git=git and checked_url(git), git_ref=git_ref, folder=folder)
    config = replace(config, reports=reports and checked_url(reports))
    config = _settled(config, settings)
    _begin(state, cluster)
    make_key(state)
    _keep_trust(state, pinned, document, signatures)
    if credential:
        durable.write(state / CREDENTIAL, _clean(credential).encode() + b"\n")
    durable.write(state / CONFIG, dump_config(config))
    return config


_TRUST_ADVICE: Final = "copy trust/<n>.json and trust/<n>.json.sig out of the fleet repository, the newest of them"


def _settled(config: Config, settings: Mapping[str, Setting] | None) -> Config:
    """Return the settings with more of them, checked as if a person had written them."""
    values = {**json.loads(dump_config(config)), **(settings or {})}
    return read_config(json.dumps(values, default=list).encode(), "settings")


def _begin(state: Path, cluster: str) -> None:
    """Make the state directory, or see that it is this cluster's."""
    if not _NAME.match(cluster):
        raise BadConfig(f"{cluster[:80]!r} is no name of a cluster", do="use lower-case letters, digits and hyphens")
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        (state / TRUST).mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadConfig(
            f"no state directory: {error.strerror}", where=str(state), do="make it, or give another by --state"
        ) from None
    if (state / CONFIG).exists():
        joined = load_config(state)
        if joined.cluster != cluster:
            raise AlreadyJoined(
                f"the agent of {joined.cluster!r} lives here", where=str(state), do="give another --state directory"
            )


def _keep_trust(state: Path, trust: Trust, document: bytes, signatures: bytes) -> None:
    """Write the pinned trust, its signatures first. Where this site trusts already, only the same fleet may go on."""
    for path in (state / TRUST).glob("*.json"):
        known = decode_trust(path.read_bytes(), str(path))
        if known.fleet != trust.fleet:
            raise AlreadyJoined(
                f"this site is of fleet {known.fleet!r}, the trust is of {trust.fleet!r}",
                where=str(state),
                do="give another --state directory; what runs from this one goes on",
            )
        return  # a hub, or who plays it, may not replace what is trusted: the chain in the overlays leads on
    document_path, signature_path = paths(trust.number)
    durable.write(state / signature_path, signatures, 0o644)
    durable.write(state / document_path, document, 0o644)


def _read(answer: Answer, cluster: str, where: str) -> _Welcome:
    code, detail = problem_of(answer)
    if answer.status in (401, 403, 409):
        replace_ = " --replace" if answer.status == 409 else ""
        raise JoinRefused(
            detail or f"status {answer.status}",
            where=where,
            do=f"ask for a new token: `edgeferry cluster token {cluster}{replace_}`",
        )
    if answer.status >= 500 or answer.status == 429:
        raise UnexpectedAnswer(f"status {answer.status} {code} {detail}".strip(), where=where, do="join again later")
    if answer.status != 200:
        said = f"{code}: {detail}" if code else f"status {answer.status}"
        raise NotAHub(said, where=where, do="check the hub's address")
    try:
        welcome = _welcome(Fields.parse(answer.body, where))
        named = Fields.parse(answer.body, where).text("cluster")
    except (Malformed, UnsupportedFormat) as error:
        raise NotAHub(error.what, where=where, do="check the hub's address") from None
    if named != cluster or welcome.fleet != welcome.trust.fleet:
        raise NotAHub(f"answers for cluster {named[:80]!r}, fleet {welcome.fleet[:80]!r}", where=where)
    return welcome


def _welcome(top: Fields) -> _Welcome:
    def trust(item: Fields) -> tuple[int, bytes, bytes]:
        document, signatures = (item.text(name, most=64 << 10).encode() for name in ("document", "signatures"))
        return item.integer("number"), document, signatures

    number, document, signatures = top.one("trust", trust) or (0, b"", b"")
    return _Welcome(
        fleet=top.text("fleet"),
        certificate=top.one("certificate", read_certificate),
        trust=pin(document, signatures, f"{top.where} trust {number}"),
        document=document,
        signatures=signatures,
        least_sequence=top.integer("leastSequence", 0),
        wait_s=top.integer("waitS", 30),
    )


def _clean(secret: str) -> str:
    """Return a secret as it may stand in a header."""
    secret = secret.strip()
    if not secret or not secret.isascii() or not secret.isprintable():
        raise BadConfig("a token or credential is empty, or holds characters that none has", do="copy it again, whole")
    return secret
