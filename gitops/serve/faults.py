"""What the service refuses, and how it says so: ``application/problem+json`` with a code."""

from __future__ import annotations

import json
from typing import ClassVar, Final

from agent.wire.errors import BadSignature, EdgeferryError, Malformed, Retry, Stop, UnsupportedFormat, Wait

PROBLEM: Final = b"application/problem+json"


class Refusal(Stop):
    """A request that gets no answer but a problem."""

    status: ClassVar[int] = 400


class Unauthenticated(Refusal):
    """No credential, or one that the hub does not know. It says no more than that."""

    code = "EF3101"
    status = 401


class TokenRefused(Refusal):
    """The join token is not known, not for this cluster, used, or expired. It does not say which."""

    code = "EF3102"
    status = 401


class NameTaken(Refusal):
    """Another machine is registered under the name, and the token is not one that replaces it."""

    code = "EF3151"
    status = 409


class Forbidden(Refusal):
    """The person is known, and the role does not allow it."""

    code = "EF3160"
    status = 403


class NotFound(Refusal):
    """Nothing stands there, or nothing that this cluster may see."""

    code = "EF3103"
    status = 404


class BadRequest(Refusal):
    """The request is not what this address takes."""

    code = "EF3104"


class BodyTooLarge(Refusal):
    """The body is larger than this address takes, as sent or unpacked."""

    code = "EF3105"
    status = 413


class OtherCluster(Refusal):
    """A report of another cluster, or of another fleet, than the one that sends it."""

    code = "EF3106"
    status = 403


class NothingPublished(Wait):
    """The cluster is registered, and no release has been published for it yet."""

    code = "EF3107"
    status: ClassVar[int] = 404


class NotReady(Retry):
    """The hub is starting, stopping, or cannot reach what it needs."""

    code = "EF3108"
    status: ClassVar[int] = 503


class TooSlow(Refusal):
    """The body did not arrive in time."""

    code = "EF3109"
    status = 408


class HookRefused(Refusal):
    """The webhook does not prove that it knows the secret."""

    code = "EF3110"
    status = 401


class HookReplayed(Refusal):
    """A signed webhook that was taken already."""

    code = "EF3162"
    status = 409


class WrongMethod(Refusal):
    """The address does not take this method."""

    code = "EF3111"
    status = 405


class NothingNamed(Refusal):
    """No cluster, model, workload or application bears the name."""

    code = "EF3135"
    status = 404


class Broken(Stop):
    """A fault of the hub itself; its log has the rest."""

    code = "EF3112"
    status: ClassVar[int] = 500


_STATUS: Final[dict[type[EdgeferryError], int]] = {BadSignature: 403, Malformed: 400, UnsupportedFormat: 400}


def status_of(error: EdgeferryError) -> int:
    """Return the HTTP status that a fault is answered with."""
    status = getattr(error, "status", None) or _STATUS.get(type(error), 500)
    assert isinstance(status, int)
    return status


def problem(error: EdgeferryError) -> bytes:
    """Return the body of the answer: RFC 9457, with ``code`` as agents read it."""
    name = type(error).__name__
    detail = error.what + (f"; {error.do}" if error.do else "")
    return json.dumps(
        {
            "type": f"urn:edgeferry:{error.code}",
            "title": name,
            "status": status_of(error),
            "detail": detail,
            "code": error.code,
        }
    ).encode()
