"""Faults of the registry, as registry clients read them.

Source: OCI distribution specification 1.1, error codes.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse, Response

from agent.wire.errors import EdgeferryError
from gitops.artifacts import NoSuchBlob, StoreFull
from gitops.oci_manifest import BadManifest
from gitops.repository_index import BadRepository
from gitops.serve.faults import Refusal, Unauthenticated, status_of
from gitops.serve.uploads import BadUpload, NoSuchUpload, WrongPiece

VERSION: Final = {"docker-distribution-api-version": "registry/2.0"}


class NoSuchManifest(Refusal):
    """The repository has no such manifest or tag."""

    code = "EF3304"
    status = 404


class NoSuchRepository(Refusal):
    """Nothing stands in a repository of this name."""

    code = "EF3305"
    status = 404


class StillUsed(Refusal):
    """A blob cannot be deleted: a manifest leads to it."""

    code = "EF3306"
    status = 405


_ANSWERS: Final[dict[type[EdgeferryError], tuple[int, str]]] = {
    NoSuchBlob: (404, "BLOB_UNKNOWN"),
    NoSuchManifest: (404, "MANIFEST_UNKNOWN"),
    NoSuchRepository: (404, "NAME_UNKNOWN"),
    BadRepository: (404, "NAME_INVALID"),
    BadManifest: (400, "MANIFEST_INVALID"),
    BadUpload: (400, "DIGEST_INVALID"),
    NoSuchUpload: (404, "BLOB_UPLOAD_UNKNOWN"),
    WrongPiece: (416, "BLOB_UPLOAD_INVALID"),
    StillUsed: (405, "UNSUPPORTED"),
    StoreFull: (507, "UNKNOWN"),
    Unauthenticated: (401, "UNAUTHORIZED"),
}


def registry_problem(error: EdgeferryError) -> Response:
    """Return a fault as registry clients read it."""
    status, code = _ANSWERS.get(type(error), (status_of(error), "UNSUPPORTED"))
    return JSONResponse({"errors": [{"code": code, "message": str(error)}]}, status, headers=VERSION)
