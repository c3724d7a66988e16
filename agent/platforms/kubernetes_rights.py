"""What the agent's account may do, asked of the API server before the agent joins."""

from __future__ import annotations

from typing import Final

from agent.platforms.kubernetes_client import Api
from agent.platforms.kubernetes_errors import RightMissing

NAMESPACE: Final = "edgeferry-models"
"""Where entries go that name no other namespace."""

_VERBS: Final = ("get", "list", "watch", "create", "patch", "delete")
_RESOURCES: Final = (("", "configmaps"), ("", "services"), ("apps", "deployments"))


def check_rights(api: Api) -> None:
    """See that the account may do what every model and workload needs, in their namespace or in its own.

    Raises:
        RightMissing: it may not; all that is missing is named.
        EdgeferryError: the API server does not answer, or does not know the account.
    """
    missing = _missing(api, NAMESPACE)
    if missing and (api.home == NAMESPACE or _missing(api, api.home)):
        raise RightMissing(
            f"the agent's account may not {'; '.join(missing)} in namespace {NAMESPACE}",
            do="grant it in a Role there, and bind the account to it",
        )


def _missing(api: Api, namespace: str) -> list[str]:
    missing = []
    for group, resource in _RESOURCES:
        verbs = [verb for verb in _VERBS if not _may(api, namespace, group, resource, verb)]
        if verbs:
            missing.append(f"{', '.join(verbs)} on {resource} ({group or 'core'})")
    return missing


def _may(api: Api, namespace: str, group: str, resource: str, verb: str) -> bool:
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = api.request("POST", path, body=review, where="rights of this account")
    return bool(answer.get("status", {}).get("allowed"))
