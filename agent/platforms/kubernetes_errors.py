"""What can go wrong between the agent and a Kubernetes API server, and the reaction to each. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from agent.wire.errors import EdgeferryError, Retry, Stop, Wait

_LONGEST: Final = 600
"""Characters of an API server's words that we repeat."""


class ApiUnreachable(Retry):
    """The API server does not answer."""

    code = "EF4201"
    delay_s = 2.0


class ApiBusy(Retry):
    """The API server answers that it cannot do it now."""

    code = "EF4202"
    delay_s = 2.0


class NotAuthenticated(Retry):
    """The API server does not know the agent's credentials."""

    code = "EF4203"
    delay_s = 15.0


class RightMissing(Retry):
    """The agent's account may not do it. A person grants the right; nothing tells us when, so we ask again."""

    code = "EF4204"
    delay_s = 30.0


class QuotaExceeded(Retry):
    """The namespace's quota or limits leave no room."""

    code = "EF4205"
    delay_s = 30.0


class ObjectInvalid(Stop):
    """The API server says that the object is not valid."""

    code = "EF4206"


class AdmissionRefused(Stop):
    """A policy of the cluster refuses the object."""

    code = "EF4207"


class KindMissing(Wait):
    """The cluster does not have the kind: its CustomResourceDefinition is not there (yet)."""

    code = "EF4208"


class ForeignObject(Stop):
    """An object of the same name is there, and it is not ours."""

    code = "EF4209"


class OutOfScope(Stop):
    """The agent may only put namespaced objects into the entry's own namespace."""

    code = "EF4210"


class ManifestUnusable(Stop):
    """A file of the entry is not a Kubernetes object that can be applied."""

    code = "EF4211"


class NamespaceEnding(Retry):
    """The namespace is being deleted."""

    code = "EF4212"
    delay_s = 5.0


class ClusterAccessUnknown(Stop):
    """There is no usable kubeconfig and no account of a pod."""

    code = "EF4213"


class ChangedMeanwhile(Retry):
    """Somebody else wrote the same object in the same moment."""

    code = "EF4214"
    delay_s = 1.0


class FieldImmutable(Stop):
    """The new version changes a field that Kubernetes lets nobody change."""

    code = "EF4215"


class ObjectShared(Stop):
    """Two entries of the release hold the same object."""

    code = "EF4216"


class InventoryUnreadable(Stop):
    """The record of what this agent put on the cluster is not what we wrote."""

    code = "EF4217"


class InventoryFull(Stop):
    """An entry has more objects than the record of them can hold."""

    code = "EF4218"


class NothingToRun(Stop):
    """The entry has nothing that a Kubernetes cluster can run."""

    code = "EF4219"


class NotFound(Exception):
    """It is not there. Never leaves the platform: whoever asks knows what it means.

    Args:
        where: the object that was asked for.
        missing: plural name of the kind that is missing: ``namespaces`` when it is the namespace; may be empty.
    """

    def __init__(self, where: str, missing: str = "") -> None:
        super().__init__(where)
        self.missing = missing


class NamespaceMissing(Exception):
    """The namespace is not there. Never leaves the platform, which makes it.

    Args:
        what: what was said.
        name: of the namespace.
    """

    def __init__(self, what: str, name: str) -> None:
        super().__init__(what)
        self.name = name


class Expired(Exception):
    """The resource version is too old to watch from. Never leaves the platform."""


def fault(status: int, body: bytes, headers: Mapping[str, str], verb: str, where: str) -> Exception:
    """Return the fault that an answer of the API server means, with what it said, shortened.

    Args:
        status: HTTP status, 400 or more.
        body: of the answer: a ``Status`` object, or whatever a proxy says.
        headers: of the answer.
        verb: ``apply``, ``get``, ``delete``, …: for the text.
        where: the object, or the path.
    """
    answer = _status_object(body)
    message = str(answer.get("message") or body.decode(errors="replace").strip() or f"HTTP status {status}")
    details = answer.get("details") or {}
    causes = [cause for cause in details.get("causes") or () if isinstance(cause, dict)]
    if status == 404:
        return NotFound(where, str(details.get("kind", "")))
    if status == 410:
        return Expired(where)
    if status == 401:
        return NotAuthenticated(_shortened(message), where=where, do="renew the agent's token or kubeconfig")
    if status == 403:
        return _forbidden(message, causes, verb, where)
    if status == 409:
        return ChangedMeanwhile(_shortened(message), where=where)
    if status in (400, 422):
        return _invalid(message, causes, where)
    if "failed to create typed patch object" in message or "field not declared in schema" in message:
        # Server-side apply judges by the schema first, and answers 500 for what is the manifest's fault.
        return _invalid(message, causes, where)
    retry: EdgeferryError = ApiBusy(f"{verb} answered {status}: {_shortened(message)}", where=where)
    after = headers.get("Retry-After", "")
    if isinstance(retry, Retry) and after.isdigit():
        retry.delay_s = min(float(after), 60.0)
    return retry


def _forbidden(message: str, causes: list[dict[str, Any]], verb: str, where: str) -> Exception:
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return NamespaceEnding(_shortened(message), where=where)
    if "exceeded quota" in message or "maximum memory usage" in message or "must specify limits" in message:
        return QuotaExceeded(
            _shortened(message), where=where, do="raise the namespace's quota, or lower the entry's needs"
        )
    right = re.search(
        r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?', message
    )
    if right:
        on, group, place = right[2], right[3] or "core", right[4]
        scope = f" in namespace {place}" if place else " cluster-wide"
        return RightMissing(
            _shortened(message), where=where, do=f"grant the agent's account `{right[1]}` on `{on}` ({group}){scope}"
        )
    if "admission webhook" in message or "ValidatingAdmissionPolicy" in message or "violates PodSecurity" in message:
        return AdmissionRefused(_shortened(message), where=where, do="change the manifest, or the cluster's policy")
    return RightMissing(_shortened(message), where=where, do=f"let the agent's account {verb} it")


def _invalid(message: str, causes: list[dict[str, Any]], where: str) -> Exception:
    if "admission webhook" in message:
        return AdmissionRefused(_shortened(message), where=where, do="change the manifest, or the cluster's policy")
    if "field is immutable" in message or "updates to statefulset spec for fields other than" in message:
        return FieldImmutable(
            _shortened(message),
            where=where,
            do='name the object anew, or let it be replaced by edgeferry.dev/recreate: "true"',
        )
    fields = ", ".join(dict.fromkeys(str(cause["field"]) for cause in causes if cause.get("field")))
    unknown = re.findall(r'unknown field "([^"]+)"|\.([\w.\[\]="-]+): field not declared in schema', message)
    named = fields or ", ".join(dict.fromkeys(one or other for one, other in unknown))
    return ObjectInvalid(_shortened(message), where=where, do=f"mend {named}" if named else "mend the manifest")


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _shortened(text: str) -> str:
    line = re.sub(r"Invalid value: \{.*?\}: ", "", " ".join(text.split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
