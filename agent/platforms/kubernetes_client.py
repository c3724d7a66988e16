"""The one module that talks to a Kubernetes API server.

It sends and takes plain JSON. Of the official client it uses what knows credentials: kubeconfig files, the account of a
pod, tokens that are renewed, and the connection pool made from them. Its typed models would cost 25 MiB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import client, config

from agent.platforms.kubernetes_errors import (
    ApiUnreachable,
    ClusterAccessUnknown,
    KindMissing,
    NotAuthenticated,
    NotFound,
    fault,
)
from agent.platforms.kubernetes_objects import MANAGER, Json, Resource

AT_ONCE: Final = 4
"""Requests that may sensibly be made at once."""

_WATCHES: Final = 28
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 30.0
_SILENCE_S: Final = 100.0
"""Bookmarks come about once a minute: a watch that is silent for longer is a dead connection."""

_PAGE: Final = 100
_JSON: Final = "application/json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Api:
    """A connection pool to one API server, and what it serves. Threads may share it."""

    def __init__(self, configuration: Any, home: str) -> None:
        """Take what :func:`connect` found.

        Args:
            configuration: of the official client.
            home: namespace of the pod, or of the kubeconfig's context; empty for none.
        """
        self.home = home
        self._configuration = configuration
        self._pool = client.ApiClient(configuration).rest_client.pool_manager
        self._resources: dict[str, dict[str, Resource]] = {}
        self._watches: set[urllib3.BaseHTTPResponse] = set()

    def close(self) -> None:
        """Close idle connections, and hang up every watch."""
        for answer in tuple(self._watches):
            with suppress(OSError, ValueError, RuntimeError):
                answer.shutdown()
        self._pool.clear()

    def resource(self, api_version: str, kind: str) -> Resource:
        """Return how a kind is served; asked once for each API version, and again while the kind is missing.

        Raises:
            KindMissing: the cluster does not serve it.
        """
        known = self._resources.get(api_version, {})
        if kind not in known:
            path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            try:
                listed = self.request("GET", path, where=path)["resources"]
            except NotFound:
                listed = []
            known = {
                one["kind"]: Resource(api_version, one["kind"], one["name"], bool(one["namespaced"]))
                for one in listed
                if "/" not in one["name"]
            }
            self._resources[api_version] = known
        if kind not in known:
            raise KindMissing(
                f"the cluster does not serve {kind} ({api_version})",
                where=f"{kind}.{api_version}",
                do="install its CustomResourceDefinition, or mend apiVersion and kind",
            )
        return known[kind]

    def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """Return an object, or None."""
        try:
            return self.request("GET", resource.path(namespace, name), where=_where(resource, namespace, name))
        except NotFound:
            return None

    def list(self, resource: Resource, namespace: str = "", selector: str = "", limit: int = 0) -> Json:
        """Return the list object of what a label selector matches.

        Raises:
            kubernetes_errors.NotFound: the kind is no longer served.
        """
        query = {"labelSelector": selector} if selector else {}
        if limit:
            query["limit"] = str(limit)
        return self.request("GET", resource.path(namespace), query, where=_where(resource, namespace))

    def pages(self, resource: Resource, namespace: str, selector: str, *, whole: bool = True) -> Iterator[Json]:
        """Yield list objects that together hold all that a label selector matches, as of one moment.

        Args:
            resource: the kind.
            namespace: empty for all.
            selector: of labels; empty for all.
            whole: else the objects come with their metadata only.

        Raises:
            kubernetes_errors.NotFound: the kind is no longer served.
            kubernetes_errors.Expired: it took too long: begin again.
        """
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = self.request(
                "GET",
                resource.path(namespace),
                query,
                accept=_JSON if whole else _METADATA,
                where=_where(resource, namespace),
            )
            # An empty list of metadata comes as null.
            page["items"] = page.get("items") or []
            yield page
            rest = page["metadata"].get("continue")
            if not rest:
                return
            query["continue"] = rest

    def forget(self, resource: Resource) -> None:
        """Ask again how a kind is served when it is next needed."""
        self._resources.pop(resource.api_version, None)

    def apply(self, resource: Resource, body: Json, *, force: bool, dry_run: bool = False) -> Json:
        """Server-side apply an object and return it as it is now; unknown fields are refused.

        Args:
            resource: its kind.
            body: the object.
            force: take over fields that another manager set to another value.
            dry_run: let the server judge it, and change nothing.
        """
        metadata = body["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        query = {"fieldManager": MANAGER, "force": "true" if force else "false", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self.request(
            "PATCH",
            resource.path(namespace, name),
            query,
            body,
            kind="application/apply-patch+yaml",
            where=_where(resource, namespace, name),
        )

    def delete(self, resource: Resource, namespace: str, name: str, uid: str, version: str = "") -> bool:
        """Order the deletion of exactly this object, what it owns after it; False when it is gone already.

        Args:
            resource: its kind.
            namespace: its own.
            name: its own.
            uid: another object of the name stays.
            version: resource version that was looked at; empty for any.

        Raises:
            ChangedMeanwhile: it is another object, or another version of it.
        """
        preconditions = {"uid": uid, **({"resourceVersion": version} if version else {})}
        body = {"propagationPolicy": "Background", "preconditions": preconditions}
        try:
            self.request("DELETE", resource.path(namespace, name), body=body, where=_where(resource, namespace, name))
        except NotFound:
            return False
        return True

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        *,
        kind: str = _JSON,
        accept: str = _JSON,
        where: str = "",
    ) -> Json:
        """Ask, and return the answer's JSON.

        Raises:
            ApiUnreachable: no answer, or not by the server that the certificates are for.
            EdgeferryError: what the answer means: see kubernetes_errors.py.
            kubernetes_errors.NotFound: 404.
        """
        with self._answer(method, path, query, body, kind, accept, where, _ANSWER_S) as answer:
            data = answer.read()
        try:
            return json.loads(data)  # type: ignore[no-any-return]  # the API server answers with objects
        except ValueError:
            raise ApiUnreachable(f"{path} answers no JSON", where=where or path) from None

    def pod_answer(
        self, namespace: str, pod: str, port: int, path: str, body: bytes, most_bytes: int
    ) -> tuple[int, bytes]:
        """Post to a pod by way of the API server, and return status and body, at most one byte over ``most_bytes``.

        Needs the right to ``create`` ``pods/proxy``. A status of 500 and more may be the API server's own.
        """
        target = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"
        with self._sent("POST", target, None, body, _JSON, _JSON, f"Pod {namespace}/{pod}", _ANSWER_S) as answer:
            return answer.status, answer.read(most_bytes + 1)

    def watch(self, resource: Resource, namespace: str, selector: str, since: str, limit_s: int) -> Iterator[Json]:
        """Yield events of a watch until the server ends it, with bookmarks.

        Args:
            resource: the kind.
            namespace: empty for all.
            selector: of labels.
            since: resource version that the watch begins after.
            limit_s: the server ends it after so long.

        Raises:
            kubernetes_errors.Expired: ``since`` is too old: list again.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": since}
        query |= {"labelSelector": selector, "timeoutSeconds": str(limit_s)}
        where = _where(resource, namespace)
        with self._answer("GET", resource.path(namespace), query, None, "", _JSON, where, _SILENCE_S) as answer:
            self._watches.add(answer)
            try:
                for event in _events(answer):
                    if event["type"] == "ERROR":
                        status = event["object"].get("code", 500)
                        raise fault(status, json.dumps(event["object"]).encode(), {}, "watch", where)
                    yield event
            finally:
                self._watches.discard(answer)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json | None,
        kind: str,
        accept: str,
        where: str,
        patience_s: float,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send JSON; what is no success is raised."""
        data = None if body is None else json.dumps(body).encode()
        with self._sent(method, path, query, data, kind, accept, where, patience_s) as answer:
            if answer.status >= 300:
                raise fault(answer.status, answer.read(), answer.headers, method.lower(), where)
            yield answer

    @contextmanager
    def _sent(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        kind: str,
        accept: str,
        where: str,
        patience_s: float,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "User-Agent": MANAGER}
        if body is not None:
            headers["Content-Type"] = kind
        try:
            token = self._configuration.auth_settings().get("BearerToken")
        except (OSError, config.ConfigException) as error:
            raise NotAuthenticated(f"no token: {error}", where=where, do="renew the agent's token") from None
        if token:
            headers["Authorization"] = token["value"]
        try:
            answer = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=patience_s),
                preload_content=False,
                redirect=False,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error, where) from None
        try:
            yield answer
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error, where) from None
        finally:
            # What was read to its end is back in the pool by now; a watch is left in the middle.
            answer.close()

    def _unreachable(self, error: Exception, where: str) -> ApiUnreachable:
        return ApiUnreachable(
            f"{self._configuration.host} does not answer: {type(error).__name__}: {str(error)[:300]}", where=where
        )


def connect(kubeconfig: str) -> Api:
    """Return the API server of a kubeconfig file, or of the pod that we run in. Nothing is sent yet.

    Args:
        kubeconfig: path; empty for the pod's own account.

    Raises:
        ClusterAccessUnknown: neither is there, or the file is not one.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig:
            load = cast(Callable[..., None], config.load_kube_config)
            load(kubeconfig, client_configuration=configuration, persist_config=False)
            home = _context_namespace(Path(kubeconfig))
        else:
            load = cast(Callable[..., None], config.load_incluster_config)
            load(client_configuration=configuration)
            home = (_ACCOUNT / "namespace").read_text().strip()
    except (config.ConfigException, OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterAccessUnknown(
            f"{error}",
            where=kubeconfig or "the pod's account",
            do="run the agent in a pod, or set kubeconfig in agent.json",
        ) from None
    # Kept open between requests: a watch that ends in time leaves its connection to the one that follows.
    configuration.connection_pool_maxsize = AT_ONCE + _WATCHES
    return Api(configuration, home)


def _context_namespace(path: Path) -> str:
    document = yaml.safe_load(path.read_bytes())
    current = document.get("current-context")
    contexts = {one["name"]: one["context"] for one in document.get("contexts") or ()}
    return str(contexts.get(current, {}).get("namespace") or "")


def _events(answer: urllib3.BaseHTTPResponse) -> Iterator[Json]:
    rest = b""
    for chunk in answer.stream(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _where(resource: Resource, namespace: str = "", name: str = "") -> str:
    return f"{resource.kind} " + "/".join(filter(None, (namespace, name)))
