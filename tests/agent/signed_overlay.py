"""Signed overlays for tests: an honest one, and everything needed to spoil it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent.wire.canonical import digest
from agent.wire.release import NAME, SIGNATURE_NAME, Artifact, Entry, Release, encode_release, with_digest
from agent.wire.signature import RELEASE, SigningKey
from agent.wire.trust import Trust, paths, sign_trust

AT = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)
FLEET, CLUSTER = "fleet-1", "milan-01"
MANIFEST = "models/reader/deployment.yaml"


def key(name: str) -> SigningKey:
    """Return the same key for the same name."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return SigningKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def trust(number: int, fleet: str = FLEET) -> Trust:
    """Trust n: its own root and release key."""
    return Trust(fleet, number, (key(f"root {number}").public,), (key(f"release {number}").public,))


def link(number: int, fleet: str = FLEET) -> dict[str, bytes]:
    """The document of trust n with its signatures, as the chain wants them."""
    roots = tuple(key(f"root {n}") for n in (number - 1, number) if n)
    return dict(zip(paths(number), sign_trust(trust(number, fleet), roots), strict=True))


def entry(files: Mapping[str, bytes], name: str = "reader", artifacts: tuple[Artifact, ...] = ()) -> Entry:
    made = Entry("model", name, "1.0.0", "file", artifacts=artifacts)
    return with_digest(made, {path: data for path, data in files.items() if path.startswith(f"models/{name}/")})


@dataclass(frozen=True)
class Overlay:
    """What a publisher would put together; every field can be spoiled before it is signed."""

    sequence: int = 7
    trust: int = 1
    fleet: str = FLEET
    cluster: str = CLUSTER
    cluster_key: str = ""
    contents: Mapping[str, bytes] = field(default_factory=lambda: {MANIFEST: b"kind: Deployment\n"})
    entries: Sequence[Entry] | None = None
    signer: str = ""
    links: Sequence[int] = (1,)
    namespace: bytes = RELEASE
    listed: Mapping[str, str] = field(default_factory=dict)
    """More than, or other than, the digests of ``contents``."""

    def files(self) -> dict[str, bytes]:
        contents = {"kustomization.yaml": b"resources: []\n", **self.contents}
        release = Release(
            fleet=self.fleet,
            cluster=self.cluster,
            cluster_key=self.cluster_key,
            sequence=self.sequence,
            published_at=AT,
            trust=self.trust,
            entries=(entry(contents),) if self.entries is None else tuple(self.entries),
            files={**{path: digest(data) for path, data in contents.items()}, **self.listed},
        )
        data, _ = encode_release(release)
        signer = key(self.signer or f"release {self.trust}")
        chain = {path: document for number in self.links for path, document in link(number).items()}
        return {**contents, **chain, NAME: data, SIGNATURE_NAME: signer.sign(data, self.namespace)}

    def but(self, **changes: object) -> Overlay:
        return replace(self, **changes)  # type: ignore[arg-type]  # names are checked by replace itself
