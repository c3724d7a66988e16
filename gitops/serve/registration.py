"""``POST /v1/register``: a join token and a public key go in, a credential and the fleet's trust come out.

Who signs the request with the private key may ask again with the same token while it lasts: the answer may be lost.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.wire.canonical import Json
from agent.wire.facts import decode_fact
from agent.wire.fields import Fields
from agent.wire.release import NAME, decode_release
from agent.wire.signature import JOIN, fingerprint, is_public_key, verify
from gitops.serve.bodies import read_body
from gitops.serve.faults import BadRequest, TokenRefused
from gitops.serve.identity import SIGNATURE_HEADER, bearer, hash_secret, read_signature
from gitops.serve.overlays import Overlays
from gitops.serve.view import HubView

WAIT_S: Final = 30
"""How long the hub wants its agents' polls to stay open."""

_MOST_BYTES: Final = 64 << 10
_MOST_FACTS: Final = 256
_log: Final = logging.getLogger(__name__)


class Registration:
    """Registers clusters. The token counts for one key."""

    def __init__(self, view: HubView, overlays: Overlays) -> None:
        self._view = view
        self._overlays = overlays

    async def post(self, request: Request) -> Response:
        """Answer one registration."""
        body = await read_body(request, _MOST_BYTES)
        token, signature = bearer(request), request.headers.get(SIGNATURE_HEADER, "")
        answer = await run_in_threadpool(self._join, token, body, signature)
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    def _join(self, token: str, body: bytes, signature: str) -> Json:
        view = self._view
        asked = Fields.parse(body, "registration")
        cluster, key = asked.text("cluster", most=253), asked.text("publicKey", most=256).strip()
        facts = asked.each("facts", decode_fact)
        if not is_public_key(key):
            raise BadRequest("publicKey is not `ssh-ed25519 AAAA…` without a comment", do="send the agent's public key")
        if len(facts) > _MOST_FACTS:
            raise BadRequest(f"{len(facts)} facts, at most {_MOST_FACTS}")
        if signature:
            verify(body, read_signature(signature, "registration"), JOIN, (key,), "registration")
        trust = view.trust()
        credential = secrets.token_urlsafe(32)
        hashes = (hash_secret(token), hash_secret(credential))
        proven = bool(signature)
        if not view.store.join(hashes[0], cluster, key, hashes[1], facts, view.now(), proven=proven):
            raise TokenRefused(
                "the join token is not valid for this cluster",
                do="ask for a new one: `edgeferry cluster token NAME`",
            )
        _log.info("%s joined with key %s", cluster, fingerprint(key))
        view.wake(f"joined: {cluster}")
        return {
            "cluster": cluster,
            "fleet": view.fleet,
            "credential": credential,
            "trust": {
                "number": trust.number,
                "document": trust.document.decode(),
                "signatures": trust.signatures.decode(),
            },
            "leastSequence": self._least_sequence(cluster),
            "waitS": WAIT_S,
        }

    def _least_sequence(self, cluster: str) -> int:
        """Return what the agent may be sure of: an older release than this is a replay."""
        commit = self._overlays.current(cluster)
        published = 0 if commit is None else decode_release(self._overlays.files(commit)[NAME]).sequence
        return max(published, self._view.store.highest_sequence(cluster))
