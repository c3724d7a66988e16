"""People at the hub: who a bearer token is of, what that person may do, and the record of what was done."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from gitops.roles import ROLES, Permission, Role
from gitops.serve.faults import Forbidden, Unauthenticated
from gitops.serve.identity import hash_secret, secret_of
from gitops.serve.view import HubView
from gitops.store import Audit, PersonToken

LOCAL: Final = "local"
"""Who shows the operator token: whoever may read the hub's state directory."""

_DO: Final = "sign in with `edgeferry login`, or show the operator token"


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks."""

    name: str
    role: Role

    def may(self, permission: Permission) -> bool:
        """Tell whether the role allows it."""
        return permission in ROLES[self.role]


class People:
    """The tokens of people, read again only when they changed. Safe for several threads."""

    def __init__(self, view: HubView) -> None:
        self._view = view
        self._mark = -1
        self._known: Mapping[bytes, PersonToken] = {}

    def who(self, request: Request) -> Person | None:
        """Return the person that a request's token is of; None for nobody."""
        secret = secret_of(request)
        if not secret:
            return None
        hashed, operator = hash_secret(secret), self._view.operator_token
        if operator and hmac.compare_digest(hashed, hash_secret(operator)):
            return Person(LOCAL, "administrator")
        mark = self._view.store.people_mark()
        if mark != self._mark:
            self._known = {one.sha256: one for one in self._view.store.people()}
            self._mark = mark
        found = self._known.get(hashed)
        if found is None or found.expires_at <= self._view.now() or found.role not in ROLES:
            return None
        return Person(found.person, found.role)

    async def note(self, request: Request, person: Person, what: str, about: str) -> None:
        """Keep the record of a change."""
        source = "" if request.client is None else request.client.host
        audit = Audit(self._view.now(), f"person/{person.name}", what, about[:300], source)
        await run_in_threadpool(self._view.store.note, audit)


def people_of(request: Request) -> People:
    """Return the people of the hub that a request came to."""
    people = request.app.state.people
    assert isinstance(people, People)
    return people


def may(request: Request, permission: Permission) -> bool:
    """Tell whether a person asks who may do it."""
    person = people_of(request).who(request)
    return person is not None and person.may(permission)


def authorize(request: Request, permission: Permission) -> Person:
    """Let only a person on who may do it.

    Raises:
        Unauthenticated: nobody known.
        Forbidden: another role.
    """
    person = people_of(request).who(request)
    if person is None:
        raise Unauthenticated("no token of a person", do=_DO)
    if not person.may(permission):
        raise Forbidden(
            f"{person.name} is {person.role}, which may not {permission}", do="ask an administrator of the hub"
        )
    return person
