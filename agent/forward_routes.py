"""Which backend stands behind which stable port: the file that the host platform writes and the forwarder reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.wire.canonical import canonical
from agent.wire.errors import Malformed
from agent.wire.fields import Fields

FORMATS: Final = (1,)
ROUTES: Final = "routes.json"
CONTROL: Final = "forward.sock"
LOCK: Final = "forward.lock"

_MAX_HOLD_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Route:
    """One stable port.

    Attributes:
        name: ``KIND/NAME``, for people.
        port: that consumers know.
        backend: port on the loopback where requests go now; 0 for nowhere.
        resend: a request may be asked twice whatever its method: an inference is a question.
        hold_ms: a request waits up to so long for a backend that is not there yet, instead of an error at once.
    """

    name: str
    port: int
    backend: int
    resend: bool = False
    hold_ms: int = 0


@dataclass(frozen=True, slots=True)
class Routes:
    """All routes of one host.

    Attributes:
        generation: grows with every change.
        listen: address of the stable ports.
    """

    generation: int
    listen: str
    routes: tuple[Route, ...] = ()


def encode_routes(routes: Routes) -> bytes:
    """Return the canonical bytes, routes by port."""
    return canonical(
        {
            "format": 1,
            "generation": routes.generation,
            "listen": routes.listen,
            "routes": [
                {
                    "name": one.name,
                    "port": one.port,
                    "backend": one.backend,
                    "resend": one.resend,
                    "holdMs": one.hold_ms,
                }
                for one in sorted(routes.routes, key=lambda route: route.port)
            ],
        }
    )


def decode_routes(data: bytes, where: str = ROUTES) -> Routes:
    """Read the routes.

    Raises:
        Malformed: a field is missing or out of its range, or two routes share a port.
        UnsupportedFormat: a newer format.
    """
    top = Fields.parse(data, where)
    top.format(FORMATS)
    routes = Routes(top.integer("generation"), top.text("listen", most=64), top.each("routes", _read_route))
    ports = [route.port for route in routes.routes]
    if len(set(ports)) != len(ports):
        raise Malformed("two routes share a port", where=where)
    if set(ports) & {route.backend for route in routes.routes}:
        raise Malformed("a route leads to a stable port", where=where)
    return routes


def _read_route(item: Fields) -> Route:
    route = Route(
        name=item.text("name", most=512),
        port=item.integer("port"),
        backend=item.integer("backend", 0),
        resend=item.flag("resend", False),
        hold_ms=item.integer("holdMs", 0),
    )
    if not 0 < route.port < 65536 or route.backend >= 65536 or route.hold_ms > _MAX_HOLD_MS:
        raise Malformed("a port or a time is out of its range", where=item.where)
    return route
