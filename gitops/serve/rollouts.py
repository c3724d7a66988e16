"""``GET /v1/rollouts`` and ``POST /v1/commands``: what people see of rollouts, and what they order."""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.wire.fields import write_time
from gitops.commands import Verb
from gitops.rollout_view import shown
from gitops.serve.bodies import read_body
from gitops.serve.faults import BadRequest
from gitops.serve.people import LOCAL, authorize, people_of
from gitops.serve.view import HubView

_MOST_BYTES: Final = 64 << 10
_OBJECT: Final = re.compile(r"(fleet|(placement|rollout|cluster)/[a-z0-9][-a-z0-9.]{0,120})\Z")
_HASH: Final = re.compile(r"[0-9a-f]{16}\Z")
"""Names a change whose blast radius is approved."""

_ARGUMENT: Final = re.compile(r"([0-9a-f]{16}|\d{1,9}(/\d{1,4})?)?\Z")


class Rollouts:
    """Shows rollouts, and takes orders about them from people with the operator token."""

    def __init__(self, view: HubView) -> None:
        self._view = view

    async def get(self, request: Request) -> Response:
        """Answer one look."""
        authorize(request, "read")
        return JSONResponse(await run_in_threadpool(self._show), headers={"cache-control": "no-store"})

    async def post(self, request: Request) -> Response:
        """Answer one order once it stands in the fleet repository."""
        person = authorize(request, "read")
        body = await read_body(request, _MOST_BYTES)
        try:
            asked = json.loads(body)
            verb, object_, by, why, argument = (
                str(asked[name]) for name in ("verb", "object", "by", "why", "argument")
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadRequest("not an order: verb, object, by, why and argument as JSON") from None
        if verb not in get_args(Verb) or not _OBJECT.match(object_) or not _ARGUMENT.match(argument):
            raise BadRequest(f"no such order: {verb[:20]} {object_[:80]} {argument[:40]}", do="see `edgeferry rollout`")
        if not why.strip() or not by.strip() or len(why) > 2000 or len(by) > 200:
            raise BadRequest("an order says who gives it, and why, in at most 2,000 characters")
        authorize(request, "allocate" if verb == "approve" and _HASH.match(argument) else "order")
        if person.name != LOCAL:
            by = person.name
        await people_of(request).note(request, person, f"{verb} {argument}".strip(), object_)
        head = await run_in_threadpool(self._view.order, cast(Verb, verb), object_, by, why, argument)
        return JSONResponse({"head": head})

    def _show(self) -> dict[str, Any]:
        state = self._view.state()
        return {
            "at": write_time(self._view.now()),
            "head": state.head,
            "frozen": state.frozen,
            "pending": state.pending,
            "rollouts": [shown(one) for one in state.rollouts],
        }
