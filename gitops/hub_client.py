"""Asking a running hub, as a person does: with the operator token, over HTTP."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from agent.wire.errors import Retry, Stop

_TIMEOUT_S: Final = 30.0
_MOST_BYTES: Final = 256 << 20


class HubUnreachable(Retry):
    """The hub does not answer."""

    code = "EF3133"


class HubRefused(Stop):
    """The hub answers, and does not give what was asked for."""

    code = "EF3134"


class NoOperatorToken(Stop):
    """There is no operator token to show to the hub."""

    code = "EF3136"


@dataclass(frozen=True, slots=True)
class HubClient:
    """One hub.

    Attributes:
        url: http:// or https://.
        token: the operator token.
        ca: file with the authorities that its certificate is checked against; None for the system's.
    """

    url: str
    token: str
    ca: Path | None = None

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON that stands at an address of the hub.

        Args:
            path: begins with ``/``.
            query: parameters.

        Raises:
            HubUnreachable: nothing answers there, or no hub does.
            HubRefused: with the code that the hub gave.
        """
        return self._ask(f"{path}{'?' + urlencode(query) if query else ''}", None)

    def post(self, path: str, value: Any) -> Any:
        """Send JSON to an address of the hub, and return the JSON that it answers; raises as ``get`` does."""
        return self._ask(path, json.dumps(value).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        address = f"{self.url.rstrip('/')}{path}"
        if urlsplit(address).scheme not in ("http", "https"):
            raise HubRefused(f"{self.url[:200]!r} is no address of a hub", do="write it like https://hub.example:8443")
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(address, body, headers)  # noqa: S310  # the scheme was checked
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            with urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects()).open(
                request, timeout=_TIMEOUT_S
            ) as answer:
                return json.loads(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            do = "check that `edgeferry hub serve` runs there, and --hub and --ca"
            raise HubUnreachable(f"no answer: {reason}", where=self.url, do=do) from None

    def _refused(self, error: urllib.error.HTTPError) -> HubRefused:
        try:
            told = json.loads(error.read(64 << 10))
            what = f"{told['code']} {told['title']}: {told['detail']}"
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            what = f"HTTP {error.code} without a word of ours: is it a hub?"
        return HubRefused(what, where=self.url)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token goes where it was sent to, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""
