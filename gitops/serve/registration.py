"""``POST /v1/register``: a join token and a public key go in, a certificate and the fleet's trust come out.

Who signs the request with the private key may ask again with the same token while it lasts: the answer may be lost.
"""

from __future__ import annotations

import logging
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.wire.canonical import Json
from agent.wire.facts import decode_fact
from agent.wire.fields import Fields, write_time
from agent.wire.release import NAME, decode_release
from agent.wire.signature import JOIN, fingerprint, is_public_key, verify
from gitops.authority import Issued
from gitops.fact_checks import admitted
from gitops.serve.bodies import read_body
from gitops.serve.faults import BadRequest, NameTaken, NotFound, TokenRefused, Unauthenticated
from gitops.serve.identity import SIGNATURE_HEADER, bearer, hash_secret, read_signature
from gitops.serve.overlays import Overlays
from gitops.serve.registered import Roll
from gitops.serve.view import HubView

WAIT_S: Final = 30
"""How long the hub wants its agents' polls to stay open."""

_MOST_BYTES: Final = 64 << 10
_UNCACHED: Final = {"cache-control": "no-store"}
_log: Final = logging.getLogger(__name__)


class Registration:
    """Registers clusters, and renews their certificates. A token counts for one key alone."""

    def __init__(self, view: HubView, overlays: Overlays, roll: Roll) -> None:
        self._view = view
        self._roll = roll
        self._overlays = overlays

    async def post(self, request: Request) -> Response:
        """Answer one registration."""
        body = await read_body(request, _MOST_BYTES)
        token, signature = bearer(request), request.headers.get(SIGNATURE_HEADER, "")
        mutual = request.scope["scheme"] == "https"  # of this connection: where a proxy ends TLS, it is not
        answer = await run_in_threadpool(self._join, token, body, signature, mutual)
        return JSONResponse(answer, headers=_UNCACHED)

    async def certificate(self, request: Request) -> Response:
        """Answer ``POST /v1/certificate``: a certificate for the key that the cluster registered.

        The request proves the key, and what is given is of use with the key alone: nothing else needs to be shown, so
        that a site whose certificate expired while it was away comes back by itself.
        """
        body = await read_body(request, _MOST_BYTES)
        return JSONResponse(await run_in_threadpool(self._renew, body), headers=_UNCACHED)

    async def authority(self, _: Request) -> Response:
        """Answer ``GET /v1/authority`` with the certificate that join lines pin by its hash."""
        if self._view.authority is None:
            raise NotFound("this hub has no certificate authority of its own", do="join without --ca-hash")
        return Response(self._view.authority.pem, media_type="application/x-pem-file")

    def _renew(self, body: bytes) -> Json:
        asked = Fields.parse(body, "certificate request")
        cluster, request = asked.text("cluster", most=253), asked.text("request", most=_MOST_BYTES)
        found = self._roll.newest().by_name.get(cluster)
        if self._view.authority is None:
            raise NotFound("this hub has no certificate authority of its own")
        if found is None:
            raise Unauthenticated("no registered cluster", do="join again, or ask who runs the hub")
        return self._issued(self._view.authority.client(request, cluster, found.key, self._view.now()))

    def _issued(self, one: Issued) -> dict[str, Json]:
        assert self._view.authority is not None
        return {
            "certificate": one.pem,
            "notBefore": write_time(one.start),
            "notAfter": write_time(one.end),
            "authority": self._view.authority.pem,
        }

    def _join(self, token: str, body: bytes, signature: str, mutual: bool) -> Json:
        view = self._view
        asked = Fields.parse(body, "registration")
        cluster, key = asked.text("cluster", most=253), asked.text("publicKey", most=256).strip()
        told, unread = asked.readable("facts", decode_fact)
        facts, faults = admitted(told, view.now(), unread)
        if not is_public_key(key):
            raise BadRequest("publicKey is not `ssh-ed25519 AAAA…` without a comment", do="send the agent's public key")
        for fault in faults[:10]:
            _log.warning("%s: %s", cluster, fault)
        if signature:
            verify(body, read_signature(signature, "registration"), JOIN, (key,), "registration")
        trust, request, issued = view.trust(), asked.text("request", "", most=_MOST_BYTES), None
        if request and mutual and view.authority is not None:
            issued = self._issued(view.authority.client(request, cluster, key, view.now()))
        joined = view.store.join(hash_secret(token), cluster, key, facts, view.now(), proven=bool(signature))
        if joined == "refused":
            raise TokenRefused(
                "the join token is not valid for this cluster",
                do="ask for a new one: `edgeferry cluster token NAME`",
            )
        if joined == "taken":
            raise NameTaken(
                f"another machine is registered as {cluster}",
                do="choose another name, or have the token made with --replace",
            )
        _log.info("%s joined with key %s", cluster, fingerprint(key))
        view.wake(f"joined: {cluster}")
        return {
            "cluster": cluster,
            "fleet": view.fleet,
            "certificate": issued,
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
