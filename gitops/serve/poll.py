"""``GET /v1/overlay``: the long poll, answered below the router because thousands of agents ask all the time."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from starlette.types import Receive, Scope, Send

from agent.wire.errors import EdgeferryError
from agent.wire.overlay import MEDIA_TYPE, pack
from gitops.serve.faults import PROBLEM, BadRequest, NothingPublished, Unauthenticated, WrongMethod, problem, status_of
from gitops.serve.identity import cluster_of, connection_of
from gitops.serve.notifier import Notifier
from gitops.serve.overlays import Overlays, etag
from gitops.serve.view import HubView

PATH: Final = "/v1/overlay"
MOST_S: Final = 300.0
"""A poll is held so long at most, whatever it asks for."""

JITTER: Final = 0.1
_WAIT: Final = re.compile(rb"(?:^|&)wait=(\d{1,6}(?:\.\d{1,3})?)(?:&|$)")


class Poll:
    """Answers polls: at once when the cluster has another overlay than the agent knows, else after the wait.

    The wait is spread by ± 10 %, so that agents that started together do not ask together. A connection whose
    registration ends while it waits is refused then and there.
    """

    def __init__(self, view: HubView, overlays: Overlays, notifier: Notifier) -> None:
        self._view = view
        self._overlays = overlays
        self._notifier = notifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one poll: 200 with the overlay, 304, or a problem."""
        try:
            commit = await self._look(scope)
        except EdgeferryError as error:
            await _refuse(error, send)
            return
        if commit is None:
            return
        head: list[tuple[bytes, bytes]] = [(b"etag", etag(commit))]
        if etag(commit) == _known(scope):
            await _answer(send, 304, head, b"")
        else:
            body = await asyncio.to_thread(lambda: pack(self._overlays.files(commit)))
            head += [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
            await _answer(send, 200, head, b"" if scope["method"] == "HEAD" else body)

    async def _look(self, scope: Scope) -> str | None:
        """Return the commit to answer with, perhaps the one that the agent knows; None when nobody listens."""
        if scope["method"] not in ("GET", "HEAD"):
            raise WrongMethod(f"{scope['method']} {PATH}", do="use GET")
        view, known, loop = self._view, _known(scope), asyncio.get_running_loop()
        connection = connection_of(scope)
        wait_s = min(_wait_s(scope["query_string"]), MOST_S) * (1 - JITTER + 2 * JITTER * view.jitter())
        deadline = loop.time() + wait_s
        while True:
            cluster = cluster_of(scope, view.store)
            view.store.touch(cluster, view.now())
            commit = self._overlays.current(cluster)
            left_s = deadline - loop.time()
            if left_s <= 0 or self._notifier.closed or (commit is not None and etag(commit) != known):
                break
            await self._notifier.wait(cluster, left_s, connection)
            if connection is not None and connection.lost:
                return None
        if commit is None:
            raise NothingPublished(
                "no release has been published for this cluster",
                do="add clusters/NAME.yaml to the model repository; it comes by itself then",
            )
        return commit


def _known(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"if-none-match":
            known: bytes = value
            return known
    return b""


def _wait_s(query: bytes) -> float:
    found = _WAIT.search(query)
    if found is None and b"wait" in query:
        raise BadRequest("wait is not a number of seconds", do="use wait=30")
    return float(found[1]) if found else 0.0


async def _refuse(error: EdgeferryError, send: Send) -> None:
    body = problem(error)
    head = [(b"content-type", PROBLEM), (b"content-length", b"%d" % len(body))]
    if isinstance(error, Unauthenticated):
        head.append((b"www-authenticate", b'Bearer realm="edgeferry"'))
    await _answer(send, status_of(error), head, body)


async def _answer(send: Send, status: int, head: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
