"""Addresses: where a URL leads, read strictly. A URL that carries a password is refused, and never quoted."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

from agent.wire.errors import Stop


class BadUrl(Stop):
    """An address is not one that can be used."""

    code = "EF4021"


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL, and the path before everything that is asked there.

    Attributes:
        prefix: begins with a slash and does not end with one, or is empty.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an ``http://`` or ``https://`` URL without user, query and fragment.

        Raises:
            BadUrl: it is something else.
        """
        do = "write it like https://hub.example:8443"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadUrl(f"not a URL: {error}", do=do) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
            raise BadUrl("not an http or https URL", where="" if "@" in url else url[:200], do=do)
        if parts.username is not None or parts.query or parts.fragment:
            where = f"{parts.scheme}://{parts.hostname}"
            raise BadUrl("user, password, query and fragment do not belong here", where=where, do=do)
        return cls(
            parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")
        )

    @property
    def loopback(self) -> bool:
        """Tell whether nothing leaves this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    @property
    def authority(self) -> str:
        """``host:port``, with the port that is in use."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"


def resolve(url: str, base: str = "") -> tuple[Origin, str]:
    """Return where a URL leads: the origin, without a prefix, and the path and query to ask for there.

    Args:
        url: absolute, or relative to ``base``, as in a redirect.
        base: absolute.

    Raises:
        BadUrl: it leads nowhere, or carries a user or a password, which is not said.
    """
    try:
        parts = urlsplit(urljoin(base, url))
    except ValueError as error:
        raise BadUrl(f"not a URL: {error}", do="write it like https://hub.example:8443/path") from None
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
    return Origin.parse(f"{parts.scheme}://{parts.netloc}"), path
