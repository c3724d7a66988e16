"""Connections of consumers to the forwarder: each request goes where the route leads when its head has come in.

Those in flight finish where they began, the next one on the same connection goes where the route leads then. Bodies
stream in both directions through bounded buffers.
"""

from __future__ import annotations

import socket
from typing import Final, Literal

from agent.forward_backend import POOL_IDLE_S, Relay, Upstream
from agent.forward_http import MAX_HEAD_BYTES, Body, Refused, RequestHead, refusal, request_head
from agent.forward_routes import Route
from agent.forward_wire import CHUNK_BYTES, HUNG, READ, WRITE, Wire

REPLAY_BYTES: Final = 64 << 10
"""A request up to this size is kept until its answer begins, in case an idle connection turns out to be closed."""

POOL_FRESH_S: Final = 1.0
"""A request that must not be asked twice takes an idle connection only when it was used within this."""

IDLE_S: Final = 75.0
HEAD_S: Final = 10.0
STALL_S: Final = 30.0
ANSWER_S: Final = 600.0
LINGER_S: Final = 2.0

State = Literal["head", "busy", "tunnel", "linger", "gone"]


class Client:
    """One connection of a consumer.

    Args:
        relay: shared.
        connection: accepted, non-blocking.
        port: the stable port it came in by.
    """

    __slots__ = (
        "_body",
        "_eof",
        "_in",
        "_replay",
        "_since",
        "_touched",
        "_up",
        "head",
        "port",
        "relay",
        "state",
        "wire",
    )

    def __init__(self, relay: Relay, connection: socket.socket, port: int) -> None:
        self.relay = relay
        self.port = port
        self.state: State = "head"
        self.head: RequestHead | None = None
        self.wire = Wire(relay.loop, connection, READ, self._on_event)
        self._body = Body(0)
        self._in = bytearray()
        self._up: Upstream | None = None
        self._replay: bytearray | None = None
        self._eof = False
        self._since = relay.loop.now
        self._touched = relay.loop.now
        relay.clients.add(self)

    def attach(self, *, fresh: bool = False) -> None:
        """Send the request, or what has been read of it, to the backend of the route as it is now.

        Args:
            fresh: on a new connection.
        """
        if self.head is None or self._replay is None or self.state != "busy":
            return
        route = self.relay.routes.get(self.port)
        if route is None or not route.backend:
            self._hold(route)
            return
        patience_s = POOL_IDLE_S if self.head.repeatable or route.resend else POOL_FRESH_S
        try:
            self._replay += self._take_body()
        except Refused as refused:
            self.refuse(refused.status, refused.why)
            return
        upstream = self.relay.take(route.backend, -1.0 if fresh else patience_s)
        upstream.serve(self)
        self._up = upstream
        upstream.wire.send(self._replay)
        if len(self._replay) > REPLAY_BYTES:
            self._replay = None

    @property
    def waits(self) -> bool:
        """A request is there, and no connection to a backend."""
        return self.state == "busy" and (self._up is None or self._up.connecting)

    @property
    def sent(self) -> bool:
        """The whole request has been read."""
        return self._body.done

    def may_repeat(self, port: int, *, used: bool) -> bool:
        """Tell whether a request that was lost without an answer may be sent again.

        It must do no harm twice; and either the connection had served before, so that it may have been closed when the
        request came, or the route leads elsewhere by now. Else it may be the request that ends its backend.

        Args:
            port: of the backend that lost it.
            used: the connection had served a request before.
        """
        route = self.relay.routes.get(self.port)
        if route is None or self.head is None or self._replay is None:
            return False
        return (self.head.repeatable or route.resend) and (used or route.backend != port)

    def repeat(self, unsent: bytearray | None = None, port: int = 0) -> None:
        """Send the request again; the connection it was on is of no use.

        Args:
            unsent: where nothing was sent at all: everything that should have been.
            port: of the backend that could not be reached.
        """
        self._up = None
        if unsent is None:
            self.attach(fresh=True)
            return
        self._replay = unsent
        route = self.relay.routes.get(self.port)
        if route is not None and route.backend not in (0, port):
            self.attach()
        else:
            self._hold(route)

    def answer(self, data: bytes | bytearray | memoryview) -> bool:
        """Pass on a part of the answer; return whether more may come now."""
        self._touched = self.relay.loop.now
        self._replay = None
        self.wire.send(data)
        return not self.wire.full

    def answered(self, *, closing: bool) -> None:
        """The answer is complete.

        Args:
            closing: its end is the end of the connection.
        """
        self._up = None
        self._touched = self.relay.loop.now
        closing = closing or self.head is None or self.head.close or not self._body.done
        self.head = None
        if closing or self.relay.stopping or self.port not in self.relay.routes:
            self._finish()
            return
        self.state = "head"
        self._advance()

    def refuse(self, status: int, why: str) -> None:
        """Answer with an error of our own and end the connection."""
        self._let_go()
        self.wire.send(refusal(status, why))
        self._finish()

    def vanish(self, *, reset: bool = False) -> None:
        """End it here and now."""
        self._let_go()
        self.state = "gone"
        self.relay.clients.discard(self)
        self.wire.close(reset=reset)

    def tunnel(self) -> None:
        """Both sides left HTTP."""
        self.state = "tunnel"
        self._replay = None
        self._advance()

    def tunnel_ended(self) -> None:
        """The backend left the tunnel."""
        self._let_go()
        self._finish()

    def leave(self) -> None:
        """The port is no longer served: end as soon as nothing is in flight."""
        if self.state == "head":
            self.vanish()

    def thirsty(self) -> None:
        """The backend takes more of the request."""
        if self.state in ("busy", "tunnel"):
            self._advance()

    def expire(self) -> None:
        """End it if it takes too long."""
        quiet_s = self.relay.loop.now - self._touched
        if self.state == "linger":
            limit_s = LINGER_S if not self.wire.out else STALL_S
        elif self.state == "head":
            limit_s = HEAD_S if self._in else STALL_S if self.wire.out else IDLE_S
        elif self.state == "tunnel" and not self.wire.out:
            return
        elif self.wire.out or (not self._body.done and self.wire.reading):
            limit_s = STALL_S
        else:
            limit_s = ANSWER_S
        if quiet_s <= limit_s:
            return
        if self.state == "head" and self._in:
            self.refuse(408, "the request did not arrive in time")
        elif self.state == "busy" and self._replay is not None and not self.wire.out:
            self.refuse(504 if self._body.done else 408, "nothing arrived in time")
        else:
            self.vanish(reset=self.state != "linger")

    def _on_event(self, event: int) -> None:
        if event & WRITE:
            self._touched = self.relay.loop.now
            if self.wire.flush():
                if self._up is not None:
                    self._up.wire.read(True)
                if self.state == "head":
                    self._advance()
                elif self.state == "linger" and self._eof:
                    self.vanish()
        if self.state != "gone" and event & (READ | HUNG):
            self._receive(bool(event & HUNG))

    def _receive(self, hung: bool) -> None:
        try:
            data = self.wire.receive()
        except OSError:
            self.vanish()
            return
        if data is None:
            return
        if not data:
            self._ended(hung)
            return
        if self.state == "linger":
            return
        if self.state != "head" or not self._in:
            self._touched = self.relay.loop.now
        self._in += data
        self._advance()

    def _ended(self, hung: bool) -> None:
        """The client sends no more; it may still want the answer."""
        self._eof = True
        if self.state == "tunnel" and self._up is not None and not hung:
            self.wire.read(False)
            self._up.wire.finish()
        elif not hung and ((self.state == "busy" and self._body.done) or (self.state == "head" and self.wire.out)):
            self.wire.read(False)
        else:
            self.vanish()

    def _advance(self) -> None:
        partial = self.state == "head"
        try:
            while self.state == "head" and not self.wire.full and self._take_head():
                pass
        except Refused as refused:
            self.refuse(refused.status, refused.why)
        self._pump()
        if self.state == "head" and self._eof and not self.wire.full:
            self._finish()
        if self.state in ("linger", "gone") or self._eof:
            return
        if partial and (self._in if self.state == "head" else not self._body.done):
            self.wire.hurry()
        if self.state == "busy" and self._up is not None and not self._body.done:
            self.wire.read(not self._up.wire.full)
        elif self.state == "tunnel":
            self.wire.read(self._up is not None and not self._up.wire.full)
        else:
            self.wire.read(len(self._in) < CHUNK_BYTES and not self.wire.full)

    def _take_head(self) -> bool:
        if self._in.startswith(b"\r\n"):
            del self._in[:2]
        end = self._in.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._in) > MAX_HEAD_BYTES):
            raise Refused(431, "the request's head is too large")
        if end < 0:
            return False
        self.head = request_head(bytes(self._in[:end]))
        del self._in[: end + 4]
        self._body = Body(self.head.framing)
        self._replay = bytearray(self.head.forward)
        self._since = self._touched = self.relay.loop.now
        self.state = "busy"
        self.attach()
        return True

    def _pump(self) -> None:
        """Pass on what has come of the request's body."""
        upstream = self._up
        if upstream is None or not self._in:
            return
        if self.state == "tunnel":
            upstream.wire.send(self._in)
            self._in.clear()
            return
        if self.state != "busy" or self._body.done:
            return
        try:
            part = self._take_body()
        except Refused as refused:
            self.refuse(refused.status, refused.why)
            return
        upstream.wire.send(part)
        if self._replay is not None:
            self._replay += part
            if len(self._replay) > REPLAY_BYTES:
                self._replay = None

    def _take_body(self) -> bytearray:
        """Return what has come of the request's body and was not taken before."""
        taken = 0 if self._body.done else self._body.feed(self._in)
        part = self._in[:taken]
        del self._in[:taken]
        return part

    def _hold(self, route: Route | None) -> None:
        hold_ms = 0 if route is None or self.relay.stopping else route.hold_ms
        if (self.relay.loop.now - self._since) * 1000 < hold_ms:
            self.relay.held.add(self)
        elif route is None:
            self.refuse(503, "nothing is served here")
        else:
            self.refuse(503, f"{route.name} is not up")

    def _finish(self) -> None:
        """Nothing more is answered: let the last bytes arrive, then close."""
        self.state = "linger"
        self._in.clear()
        self._touched = self.relay.loop.now
        self.wire.finish()
        if self._eof and not self.wire.out:
            self.vanish()
        else:
            self.wire.read(not self._eof)

    def _let_go(self) -> None:
        self.relay.held.discard(self)
        self.head = None
        if self._up is not None:
            upstream, self._up = self._up, None
            upstream.abandon()
