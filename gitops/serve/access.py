"""Every address of the hub, and who may use it: what the OpenAPI description and the table in the docs are made of.

A test compares it with the routes, and plays hostile clusters and people against each line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gitops.roles import ROLES


@dataclass(frozen=True, slots=True)
class Rule:
    """One method of one address.

    Attributes:
        method: GET stands for HEAD, too.
        path: as Starlette has it.
        who: ``anyone``; ``join token``; ``cluster``: a registered one, for what is its own; ``hook``: who knows the
            webhook's secret; or a permission of people, alone or behind ``cluster or``.
        what: one sentence.
        query: names of its parameters.
    """

    method: str
    path: str
    who: str
    what: str
    query: tuple[str, ...] = ()


_MANIFESTS: Final = "/v2/{repository:path}/manifests/{reference}"
_BLOBS: Final = "/v2/{repository:path}/blobs/{reference}"
_UPLOADS: Final = "/v2/{repository:path}/blobs/uploads"
_UPLOAD: Final = "/v2/{repository:path}/blobs/uploads/{upload}"

RULES: Final = (
    Rule("GET", "/healthz", "anyone", "The process answers."),
    Rule("GET", "/readyz", "anyone", "Database and fleet repository can be read."),
    Rule("GET", "/v1/openapi.json", "anyone", "This description."),
    Rule("GET", "/v1/authority", "anyone", "Certificate of the hub's own authority, which join lines pin."),
    Rule("POST", "/v1/register", "join token", "Register a cluster's key."),
    Rule("POST", "/v1/certificate", "cluster", "Renew the certificate of the key, which the request proves."),
    Rule("GET", "/v1/overlay", "cluster", "The cluster's overlay; waits for news.", ("wait",)),
    Rule("POST", "/v1/reports", "cluster", "Take a signed report of the cluster."),
    Rule("GET", "/git/{cluster}/info/refs", "cluster", "The cluster's overlay for stock Git.", ("service",)),
    Rule("POST", "/git/{cluster}/git-upload-pack", "cluster", "The same."),
    Rule("GET", "/v2/", "cluster or read", "This is a registry."),
    Rule("GET", _MANIFESTS, "cluster or read", "A manifest; for a cluster, of its releases."),
    Rule("PUT", _MANIFESTS, "push", "Keep a manifest."),
    Rule("DELETE", _MANIFESTS, "push", "Forget a manifest."),
    Rule("GET", _BLOBS, "cluster or read", "A blob; for a cluster, of its releases."),
    Rule("DELETE", _BLOBS, "push", "Forget a blob."),
    Rule("POST", _UPLOADS, "push", "Begin to upload a blob."),
    Rule("POST", f"{_UPLOADS}/", "push", "The same."),
    Rule("GET", _UPLOAD, "push", "How much has arrived."),
    Rule("PATCH", _UPLOAD, "push", "A piece."),
    Rule("PUT", _UPLOAD, "push", "The end."),
    Rule("DELETE", _UPLOAD, "push", "Give up."),
    Rule("GET", "/v2/{repository:path}/tags/list", "read", "Tags.", ("n", "last")),
    Rule("GET", "/v2/{repository:path}/referrers/{reference}", "cluster or read", "What refers to a manifest."),
    Rule("GET", "/v1/whoami", "read", "Name, role and permissions of who asks."),
    Rule("GET", "/v1/status", "read", "What runs where.", ("about",)),
    Rule("GET", "/v1/rollouts", "read", "Rollouts as they stand."),
    Rule("GET", "/v1/events", "read", "Events of clusters.", ("cluster", "after", "limit")),
    Rule("GET", "/v1/facts", "read", "Facts of all clusters, as a snapshot."),
    Rule("POST", "/v1/commands", "order", "Order about rollouts; approving a blast radius takes `allocate`."),
    Rule("GET", "/v1/clusters", "read", "Registered clusters.", ("after", "limit")),
    Rule("GET", "/v1/clusters/{cluster}", "read", "One registered cluster, its facts and entries."),
    Rule("DELETE", "/v1/clusters/{cluster}", "allocate", "Revoke a cluster's registration and its tokens."),
    Rule("POST", "/v1/tokens", "allocate", "Make a join token."),
    Rule("GET", "/v1/people", "administer", "Tokens of people, without the tokens."),
    Rule("POST", "/v1/people", "administer", "Make a token for a person."),
    Rule("DELETE", "/v1/people/{id}", "administer", "Withdraw a token."),
    Rule("GET", "/v1/audit", "administer", "What was done, by whom, from where; newest first.", ("before", "limit")),
    Rule("POST", "/hooks/push", "hook", "Somebody pushed: look."),
    Rule("POST", "/hooks/push/{source}", "hook", "The same, of one source."),
)


def roles_for(who: str) -> str:
    """Return who that is, in words."""
    permission = who.rpartition(" ")[2]
    roles = [role for role, permissions in ROLES.items() if permission in permissions]
    if not roles:
        return who
    return ("the cluster itself; " if who.startswith("cluster") else "") + ", ".join(roles)


def table() -> str:
    """Return who may do what, as a table in Markdown."""
    lines = ["| address | who | what |", "|---|---|---|"]
    for one in RULES:
        path = one.path.replace("{repository:path}", "{repository}")
        lines.append(f"| `{one.method} {path}` | {roles_for(one.who)} | {one.what} |")
    return "\n".join(lines) + "\n"


def openapi(version: str) -> dict[str, Any]:
    """Return the description of the whole service, OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for one in RULES:
        path = one.path.replace("{repository:path}", "{repository}")
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        parameters = [_parameter(name, "path") for name in names] + [_parameter(name, "query") for name in one.query]
        paths.setdefault(path, {})[one.method.lower()] = {
            "summary": one.what,
            "description": f"For: {roles_for(one.who)}.",
            "parameters": parameters,
            "security": [] if one.who in ("anyone", "hook") else _SECURITY,
            "responses": {
                "2XX": {"description": "Done."},
                "304": {"description": "Not changed since `If-None-Match`."},
                "default": {
                    "description": "A fault; `code` is described in the documentation of errors.",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Edgeferry hub", "version": version},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    }


_SECURITY: Final[list[dict[str, list[str]]]] = [{"certificate": []}, {"bearer": []}, {"basic": []}]
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^EF[0-9]{4}$"},
    },
}


def _parameter(name: str, place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}
