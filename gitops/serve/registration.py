"""``POST /v1/register``: a join token and a public key go in, a credential and the fleet's trust come out."""

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
from agent.wire.signature import fingerprint, is_public_key
from gitops.serve.bodies import read_body
from gitops.serve.faults import BadRequest, TokenRefused
from gitops.serve.identity import bearer, hash_secret
from gitops.serve.overlays import Overlays
from gitops.serve.view import HubView

WAIT_S: Final = 30
"""How long the hub wants its agents' polls to stay open."""

_MOST_BYTES: Final = 64 << 10
_MOST_FACTS: Final = 256
_log: Final = logging.getLogger(__name__)


class Registration:
    """Registers clusters. The token counts once, whatever becomes of the answer."""

    def __init__(self, view: HubView, overlays: Overlays) -> None:
        self._view = view
        self._overlays = overlays

    async def post(self, request: Request) -> Response:
        """Answer one registration."""
        body = await read_body(request, _MOST_BYTES)
        token = bearer(request)
        return JSONResponse(await run_in_threadpool(self._join, token, body), headers={"cache-control": "no-store"})

    def _join(self, token: str, body: bytes) -> Json:
        view = self._view
        asked = Fields.parse(body, "registration")
        cluster, key = asked.text("cluster", most=253), asked.text("publicKey", most=256).strip()
        facts = asked.each("facts", decode_fact)
        if not is_public_key(key):
            raise BadRequest("publicKey is not `ssh-ed25519 AAAA…` without a comment", do="send the agent's public key")
        if len(facts) > _MOST_FACTS:
            raise BadRequest(f"{len(facts)} facts, at most {_MOST_FACTS}")
        trust = view.trust()
        credential = secrets.token_urlsafe(32)
        if not view.store.join(hash_secret(token), cluster, key, hash_secret(credential), facts, view.now()):
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
