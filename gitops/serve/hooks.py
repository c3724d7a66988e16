"""``POST /hooks/push``: a Git host says that somebody pushed; the hub looks for itself."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gitops.serve.bodies import chunks
from gitops.serve.faults import HookRefused, HookReplayed, NotFound
from gitops.serve.view import HubView

_MOST_BYTES: Final = 25 << 20
"""GitHub's largest payload. It is only hashed, never kept."""

_MOST_REMEMBERED: Final = 4096
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?\Z")


class Hooks:
    """Takes webhooks of GitHub, Gitea and GitLab, and of anything that can send a POST."""

    def __init__(self, view: HubView) -> None:
        self._view = view
        self._taken: OrderedDict[str, None] = OrderedDict()

    async def push(self, request: Request) -> Response:
        """Answer one hook with 202, and wake the hub."""
        source = request.path_params.get("source", "")
        if source and not _NAME.match(source):
            raise NotFound("no such source", do="use /hooks/push or /hooks/push/SOURCE")
        secrets = self._view.hook_secrets
        secret = secrets.get(source, secrets.get("", "")).encode()
        signed = hmac.new(secret, digestmod=hashlib.sha256)
        async for chunk in chunks(request, _MOST_BYTES):
            signed.update(chunk)
        if secret and not _proves(request, secret, signed.hexdigest()):
            raise HookRefused(
                "no proof of the webhook's secret", do="set the same secret at the Git host and in the hub's settings"
            )
        if secret and _is_signed(request):
            # The sender's own name of a delivery is not signed; the body is, and no two pushes have the same.
            if signed.hexdigest() in self._taken:
                raise HookReplayed("this delivery was taken before", do="nothing: the hub has looked since")
            self._taken[signed.hexdigest()] = None
            if len(self._taken) > _MOST_REMEMBERED:
                self._taken.popitem(last=False)
        self._view.wake(f"hook: {source or 'push'}")
        return Response(status_code=202)


def _is_signed(request: Request) -> bool:
    return "x-hub-signature-256" in request.headers or "x-gitea-signature" in request.headers


def _proves(request: Request, secret: bytes, signature: str) -> bool:
    """Tell whether a header shows the secret: GitHub and Gitea sign the body with it, GitLab sends it."""
    github = request.headers.get("x-hub-signature-256", "").removeprefix("sha256=")
    gitea = request.headers.get("x-gitea-signature", "")
    gitlab = request.headers.get("x-gitlab-token", "")
    right = [
        hmac.compare_digest(github.encode(), signature.encode()),
        hmac.compare_digest(gitea.encode(), signature.encode()),
        hmac.compare_digest(gitlab.encode(), secret),
    ]
    return any(right)
