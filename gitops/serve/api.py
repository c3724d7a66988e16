"""``/v1``: clusters, join tokens, people's tokens and the audit log, for people."""

from __future__ import annotations

import difflib
import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.wire.fields import write_time
from gitops import names
from gitops.cluster_view import cluster_shown
from gitops.people_tokens import new_person
from gitops.roles import ROLES, Role
from gitops.serve.bodies import read_body
from gitops.serve.faults import BadRequest, NothingNamed
from gitops.serve.identity import hash_secret
from gitops.serve.people import authorize, people_of
from gitops.serve.view import HubView
from gitops.store import Audit, JoinToken, PersonToken

MOST_A_PAGE: Final = 1000
_A_PAGE: Final = 100
_MOST_BYTES: Final = 16 << 10
_LONGEST_S: Final = 366 * 86400
_UNCACHED: Final = {"cache-control": "no-store"}


class Api:
    """Answers people's programs, as `edgeferry` is one."""

    def __init__(self, view: HubView) -> None:
        self._view = view

    async def whoami(self, request: Request) -> Response:
        """Answer ``GET /v1/whoami``."""
        person = authorize(request, "read")
        may = sorted(ROLES[person.role])
        return JSONResponse({"name": person.name, "role": person.role, "permissions": may}, headers=_UNCACHED)

    async def clusters(self, request: Request) -> Response:
        """Answer ``GET /v1/clusters``, by name, ``limit`` at a time after ``after``."""
        authorize(request, "read")
        after, limit = request.query_params.get("after", ""), _limit(request)

        def page() -> dict[str, Any]:
            everybody = [one for one in self._view.store.registrations() if one.name > after]
            reports = self._view.store.latest_reports()
            shown = [cluster_shown(one, reports.get(one.name)) for one in everybody[:limit]]
            return {"items": shown, "next": shown[-1]["name"] if len(everybody) > limit else ""}

        return _tagged(request, await run_in_threadpool(page))

    async def cluster(self, request: Request) -> Response:
        """Answer ``GET`` and ``DELETE /v1/clusters/NAME``."""
        name = request.path_params["cluster"]
        if request.method == "DELETE":
            person = authorize(request, "allocate")
            who, now = f"person/{person.name}", self._view.now()
            if not await run_in_threadpool(self._view.store.revoke, name, who, now):
                raise self._unknown(name)
            await people_of(request).note(request, person, "revoke", f"cluster/{name}")
            self._view.wake(f"joined: {name}")
            return Response(status_code=204)
        authorize(request, "read")
        return _tagged(request, await run_in_threadpool(self._one, name))

    async def tokens(self, request: Request) -> Response:
        """Answer ``POST /v1/tokens`` with a join token, which is shown this once."""
        person = authorize(request, "allocate")
        asked = await _asked(request, {"cluster": str}, {"ttlS": int, "labels": dict, "replace": bool})
        name, labels = asked["cluster"], asked.get("labels", {})
        try:
            if not names.is_name(name):
                raise ValueError("cluster: at most 53 of a-z 0-9 -, beginning and ending with a letter or digit")
            for key, value in labels.items():
                names.label_key(key)
                names.label_value(value if isinstance(value, str) else "?")
        except ValueError as error:
            raise BadRequest(str(error)[:300]) from None
        secret, now = secrets.token_urlsafe(32), self._view.now()
        expires = now + timedelta(seconds=_ttl_s(asked, 86400))
        token = JoinToken(hash_secret(secret), name, expires, labels, asked.get("replace", False))
        await run_in_threadpool(self._view.store.add_token, token, f"person/{person.name}", now)
        await people_of(request).note(request, person, "join token", f"cluster/{name}")
        said = {"cluster": name, "token": secret, "expires": write_time(expires), "caHash": self._ca_hash(request)}
        return JSONResponse(said, 201, headers=_UNCACHED)

    async def people(self, request: Request) -> Response:
        """Answer ``GET`` and ``POST /v1/people``."""
        person = authorize(request, "administer")
        if request.method != "POST":
            found = await run_in_threadpool(self._view.store.people)
            return JSONResponse({"items": [_person(one) for one in found], "next": ""}, headers=_UNCACHED)
        asked = await _asked(request, {"person": str, "role": str}, {"ttlS": int})
        if asked["role"] not in get_args(Role):
            raise BadRequest(f"no role {asked['role'][:40]!r}", do=f"roles are {', '.join(get_args(Role))}")
        if not asked["person"].isprintable() or not 0 < len(asked["person"]) <= 100:
            raise BadRequest("person is not a name of at most 100 letters")
        source = "" if request.client is None else request.client.host
        secret, token = new_person(asked["person"], asked["role"], _ttl_s(asked, 90 * 86400), self._view.now())
        audit = Audit(token.created_at, f"person/{person.name}", "token", f"person/{token.person} {token.role}", source)
        await run_in_threadpool(self._view.store.add_person, token, audit)
        return JSONResponse(_person(token) | {"token": secret}, 201, headers=_UNCACHED)

    async def withdraw(self, request: Request) -> Response:
        """Answer ``DELETE /v1/people/ID``."""
        person = authorize(request, "administer")
        source, id_ = "" if request.client is None else request.client.host, request.path_params["id"]
        audit = Audit(self._view.now(), f"person/{person.name}", "withdraw", f"token/{id_[:40]}", source)
        if not await run_in_threadpool(self._view.store.drop_person, id_, audit):
            raise NothingNamed(f"no token {id_[:40]!r}", do="see `GET /v1/people`")
        return Response(status_code=204)

    async def audit(self, request: Request) -> Response:
        """Answer ``GET /v1/audit``, newest first, ``limit`` at a time before ``before``."""
        authorize(request, "administer")
        before, limit = request.query_params.get("before", ""), _limit(request)
        if before and not (before.isascii() and before.isdecimal() and len(before) < 19):
            raise BadRequest("before is not a number", do="use `next` of the page before")
        found = await run_in_threadpool(self._view.store.audits, limit + 1, int(before) if before else None)
        items = [
            {
                "id": n,
                "at": write_time(one.at),
                "who": one.who,
                "what": one.what,
                "about": one.about,
                "from": one.source,
            }
            for n, one in found[:limit]
        ]
        return JSONResponse({"items": items, "next": str(found[limit - 1][0]) if len(found) > limit else ""})

    def _one(self, name: str) -> dict[str, Any]:
        store = self._view.store
        registration = store.registration(name)
        if registration is None:
            raise self._unknown(name)
        stored = store.report(name)
        shown = cluster_shown(registration, stored)
        shown["facts"] = {fact.name: fact.value for fact in store.facts().get(name, ())}
        entries = () if stored is None else stored.report.entries
        shown["entries"] = [
            {"kind": one.kind, "name": one.name, "version": one.version, "health": one.health, "message": one.message}
            for one in entries
        ]
        return shown

    def _unknown(self, name: str) -> NothingNamed:
        near = difflib.get_close_matches(name, [one.name for one in self._view.store.registrations()], 1)
        do = f"did you mean {near[0]}?" if near else "see `edgeferry cluster list`"
        return NothingNamed(f"{name[:80]!r} is not registered", do=do)

    def _ca_hash(self, request: Request) -> str:
        authority = self._view.authority
        return authority.hash if authority is not None and self._view.own_tls else ""


def _person(one: PersonToken) -> dict[str, Any]:
    times = {"createdAt": write_time(one.created_at), "expiresAt": write_time(one.expires_at)}
    return {"id": one.id, "person": one.person, "role": one.role, **times}


def _audit(n: int, one: Audit) -> dict[str, Any]:
    said = {"who": one.who, "what": one.what, "about": one.about, "from": one.source}
    return {"id": n, "at": write_time(one.at), **said}


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "") or str(_A_PAGE)
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) <= MOST_A_PAGE):
        raise BadRequest(f"limit is not a number from 1 to {MOST_A_PAGE}")
    return int(text)


def _ttl_s(asked: Mapping[str, Any], default: int) -> int:
    ttl_s = asked.get("ttlS", default)
    if not 0 < ttl_s <= _LONGEST_S:
        raise BadRequest(f"ttlS is not from 1 to {_LONGEST_S} seconds")
    return int(ttl_s)


async def _asked(request: Request, needed: Mapping[str, type], more: Mapping[str, type]) -> dict[str, Any]:
    try:
        asked = json.loads(await read_body(request, _MOST_BYTES))
    except (ValueError, RecursionError):
        raise BadRequest("not JSON") from None
    known = {**needed, **more}
    if not isinstance(asked, dict) or not needed.keys() <= asked.keys() <= known.keys():
        raise BadRequest(f"not an object with {', '.join(needed)} and perhaps {', '.join(more)}")
    wrong = [name for name, value in asked.items() if type(value) is not known[name]]
    if wrong:
        raise BadRequest(f"of the wrong kind: {', '.join(wrong)}")
    return asked


def _tagged(request: Request, value: Any) -> Response:
    """Answer with an ETag, or 304 where the client has it already."""
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    head = {"etag": tag, "cache-control": "private, no-cache"}
    if tag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=head)
    return Response(data, media_type="application/json", headers=head)
