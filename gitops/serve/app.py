"""The ASGI application: every address that the hub answers, and what stands behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent.wire.errors import EdgeferryError
from gitops.serve.access import openapi
from gitops.serve.api import Api
from gitops.serve.events import Events
from gitops.serve.faults import (
    PROBLEM,
    BadRequest,
    Broken,
    NotFound,
    NotReady,
    Unauthenticated,
    WrongMethod,
    problem,
    status_of,
)
from gitops.serve.git_http import GitHttp
from gitops.serve.hooks import Hooks
from gitops.serve.identity import cluster_of
from gitops.serve.known_facts import KnownFacts
from gitops.serve.notifier import Notifier
from gitops.serve.overlays import Overlays
from gitops.serve.people import People
from gitops.serve.poll import PATH, Polls
from gitops.serve.registered import Roll
from gitops.serve.registration import Registration
from gitops.serve.registry import Registry
from gitops.serve.registry_faults import registry_problem
from gitops.serve.registry_push import Pushes
from gitops.serve.reports import Reports
from gitops.serve.rollouts import Rollouts
from gitops.serve.status import Status
from gitops.serve.view import HubView

RECHECK_S: Final = 1.0
"""A revoked registration ends its waiting polls within this, also when another process revoked it."""

FLUSH_S: Final = 60.0

_log: Final = logging.getLogger(__name__)


class App:
    """The service of one hub.

    Attributes:
        notifier: tell it what was published.
        routes: all addresses.
        polls: answers the polls, below the application: see gitops/serve/protocol.py.
    """

    def __init__(self, view: HubView, notifier: Notifier) -> None:
        self.notifier = notifier
        self._view = view
        self._roll = Roll(view.store, view.fleet, view.now)
        overlays = Overlays(view.clusters, view.objects, view.artifacts)
        self.polls = Polls(view, overlays, notifier, self._roll)
        self.routes = _routes(view, overlays, self._roll)
        self._rest = Starlette(
            routes=self.routes,
            exception_handlers={EdgeferryError: self._refuse, HTTPException: _refuse_http, Exception: _break},
        )

        self._rest.state.people = People(view)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        answer = await _refuse(request, error)
        if isinstance(error, Unauthenticated):
            # A site whose clock is wrong learns here for which time to sign its access tokens.
            answer.headers["edgeferry-time"] = str(int(self._view.now().timestamp()))
        return answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run through start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        self._roll.newest()
        self.notifier.attach(asyncio.get_running_loop())
        chores = [asyncio.create_task(one) for one in (self._recheck(), self._flush())]
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.notifier.attach(None)
        self.polls.close()
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await run_in_threadpool(self._view.store.flush)
        await send({"type": "lifespan.shutdown.complete"})

    async def _recheck(self) -> None:
        """Let the polls of clusters whose registration has changed look again at who they are."""
        known = self._roll.recent
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                newest = await run_in_threadpool(self._roll.newest)
            except Exception:
                _log.exception("the registrations cannot be read")  # the store may come back: look again
                continue
            if newest is not known:
                gone = self.notifier.waiting() - newest.by_name.keys()  # also who joined and left between two looks
                self.notifier.published(newest.changed_since(known) | gone)
                known = newest

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await run_in_threadpool(self._view.store.flush)
            except Exception:
                _log.exception("when clusters were seen cannot be written")


def create_app(view: HubView, notifier: Notifier | None = None) -> App:
    """Return the service of a hub.

    Args:
        view: what it is made of.
        notifier: where publications are told; its own for None.
    """
    return App(view, Notifier() if notifier is None else notifier)


def _routes(view: HubView, overlays: Overlays, roll: Roll) -> Sequence[Route]:
    registration, reports = Registration(view, overlays, roll), Reports(view, roll)
    git, registry = GitHttp(view, overlays, roll), Registry(view, overlays, roll)
    pushes = Pushes(view, registry)
    hooks, status = Hooks(view), Status(view)
    rollouts, events = Rollouts(view), Events(view)
    api, description = Api(view), openapi(version("edgeferry"))

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        def look() -> None:
            try:
                view.store.registrations_mark()
                view.trust()
            except Exception as error:
                _log.exception("not ready")
                raise NotReady("the store or the fleet repository cannot be read", do="see the hub's log") from error

        await run_in_threadpool(look)
        return JSONResponse({"status": "ready"})

    async def described(_: Request) -> Response:
        return JSONResponse(description)

    async def poll(request: Request) -> Response:
        cluster_of(request, roll.newest())
        raise BadRequest("a poll has no body and waits for no other answer", do="ask with a plain GET")

    return [
        Route(PATH.decode(), poll),
        Route("/v1/register", registration.post, methods=["POST"]),
        Route("/v1/certificate", registration.certificate, methods=["POST"]),
        Route("/v1/authority", registration.authority),
        Route("/v1/reports", reports.post, methods=["POST"]),
        Route("/v1/status", status.get),
        Route("/v1/rollouts", rollouts.get),
        Route("/v1/events", events.get),
        Route("/v1/commands", rollouts.post, methods=["POST"]),
        Route("/v1/facts", KnownFacts(view).get),
        Route("/v1/whoami", api.whoami),
        Route("/v1/clusters", api.clusters),
        Route("/v1/clusters/{cluster}", api.cluster, methods=["GET", "DELETE"]),
        Route("/v1/tokens", api.tokens, methods=["POST"]),
        Route("/v1/people", api.people, methods=["GET", "POST"]),
        Route("/v1/people/{id}", api.withdraw, methods=["DELETE"]),
        Route("/v1/audit", api.audit),
        Route("/v1/openapi.json", described),
        Route("/git/{cluster}/info/refs", git.refs),
        Route("/git/{cluster}/git-upload-pack", git.upload_pack, methods=["POST"]),
        Route("/v2/", registry.base),
        Route("/v2/{repository:path}/manifests/{reference}", pushes.manifest, methods=["GET", "PUT", "DELETE"]),
        Route("/v2/{repository:path}/blobs/uploads", pushes.uploads, methods=["POST"]),
        Route("/v2/{repository:path}/blobs/uploads/", pushes.uploads, methods=["POST"]),
        Route(
            "/v2/{repository:path}/blobs/uploads/{upload}",
            pushes.upload,
            methods=["GET", "PATCH", "PUT", "DELETE"],
        ),
        Route("/v2/{repository:path}/blobs/{reference}", pushes.blob, methods=["GET", "DELETE"]),
        Route("/v2/{repository:path}/tags/list", registry.tags),
        Route("/v2/{repository:path}/referrers/{reference}", registry.referrers),
        Route("/hooks/push", hooks.push, methods=["POST"]),
        Route("/hooks/push/{source}", hooks.push, methods=["POST"]),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
    ]


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, EdgeferryError)
    path, status = request.url.path, status_of(error)
    if path.startswith("/v2/"):
        answer = registry_problem(error)
    else:
        answer = Response(problem(error), status, media_type=PROBLEM.decode())
    if isinstance(error, Unauthenticated):
        scheme = "Basic" if path.startswith(("/git/", "/v2/")) else "Bearer"
        answer.headers["www-authenticate"] = f'{scheme} realm="edgeferry"'
    if status in (408, 413):
        answer.headers["connection"] = "close"  # what is still to come of the body is not waited for
    return answer


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return await _refuse(request, WrongMethod(f"{request.method} is not taken here"))
    if error.status_code == 404:
        return await _refuse(request, NotFound("nothing stands at this address"))
    return await _refuse(request, Broken(f"HTTP {error.status_code}"))


async def _break(request: Request, _: Exception) -> Response:
    return await _refuse(request, Broken("the hub has a fault of its own", do="see its log"))
