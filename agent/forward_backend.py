"""Connections of the forwarder to backends: made, used for one request after another, kept for a while."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from agent.forward_http import MAX_HEAD_BYTES, Body, Refused, ResponseHead, response_head
from agent.forward_routes import Route
from agent.forward_wire import HUNG, READ, WRITE, Loop, Wire

if TYPE_CHECKING:
    from agent.forward_client import Client

POOL_IDLE_S: Final = 30.0
POOL_MOST: Final = 64


class Relay:
    """What all connections of the forwarder share.

    Args:
        loop: tells of events.
    """

    __slots__ = ("_backends", "_pools", "busy", "clients", "held", "loop", "routes", "stopping")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.routes: dict[int, Route] = {}
        self.clients: set[Client] = set()
        self.held: set[Client] = set()
        """Clients whose request waits for a backend."""
        self.busy: dict[int, int] = {}
        """Backend port → requests in flight; no zeros."""
        self.stopping = False
        self._backends: frozenset[int] = frozenset()
        self._pools: dict[int, list[Upstream]] = {}

    def route_by(self, routes: dict[int, Route]) -> None:
        """Route every following request, and those that wait, by ``routes``."""
        self.routes = routes
        self._backends = frozenset(route.backend for route in routes.values())
        for port in self._pools.keys() - self._backends:
            for upstream in self._pools.pop(port):
                upstream.wire.close()
        for client in tuple(self.clients):
            if client.port not in routes:
                client.leave()
        self.kick()

    def waiting(self) -> int:
        """Return how many requests have no backend that takes them."""
        return sum(client.waits for client in self.clients)

    def kick(self) -> None:
        """Try again for the requests that wait."""
        waiting, self.held = self.held, set()
        for client in waiting:
            client.attach()

    def sweep(self) -> None:
        """End what takes too long; call it about once a second."""
        for client in tuple(self.clients):
            client.expire()
        for pool in self._pools.values():
            for upstream in tuple(pool):
                if self.loop.now - upstream.touched > POOL_IDLE_S:
                    pool.remove(upstream)
                    upstream.wire.close()

    def take(self, port: int, most_idle_s: float) -> Upstream:
        """Return a connection to the backend: an idle one, or a new one."""
        pool = self._pools.get(port)
        if pool and self.loop.now - pool[-1].touched <= most_idle_s:
            return pool.pop()
        return Upstream(self, port)

    def give(self, upstream: Upstream) -> None:
        """Keep a connection for another request, or close it."""
        wanted = upstream.port in self._backends
        pool = self._pools.setdefault(upstream.port, []) if wanted else []
        if wanted and len(pool) < POOL_MOST and not self.stopping:
            pool.append(upstream)
        else:
            upstream.wire.close()

    def drop(self, upstream: Upstream) -> None:
        """An idle connection was closed by its backend."""
        pool = self._pools.get(upstream.port, [])
        if upstream in pool:
            pool.remove(upstream)
        upstream.wire.close()

    def count(self, port: int, change: int) -> None:
        """A request to the backend began, or ended."""
        number = self.busy.get(port, 0) + change
        if number:
            self.busy[port] = number
        else:
            self.busy.pop(port, None)


class Upstream:
    """One connection to a backend.

    Args:
        relay: shared.
        port: of the backend, on the loopback.
    """

    __slots__ = ("_body", "_client", "_in", "_response", "_used", "connecting", "port", "relay", "touched", "wire")

    def __init__(self, relay: Relay, port: int) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect_ex(("127.0.0.1", port))
        self.relay = relay
        self.port = port
        self.touched = relay.loop.now
        self.wire = Wire(relay.loop, connection, WRITE, self._on_event)
        self.connecting = True
        self._used = False
        self._client: Client | None = None
        self._in = bytearray()
        self._response: ResponseHead | None = None
        self._body = Body(0)

    def serve(self, client: Client) -> None:
        """Carry one request of ``client``, which sends it on ``wire``."""
        self._client = client
        self._response = None
        self.relay.count(self.port, 1)

    def abandon(self) -> None:
        """The client is gone, or has its answer from us."""
        self._release()
        self.wire.close()

    def _release(self) -> None:
        if self._client is not None:
            self._client = None
            self.relay.count(self.port, -1)

    def _on_event(self, event: int) -> None:
        if self.connecting:
            if self.wire.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or event & HUNG:
                self._unreachable()
                return
            self.connecting = False
            self.wire.connected()
        elif event & WRITE:
            self.wire.flush()
        if event & WRITE and not self.wire.full and self._client is not None:
            self._client.thirsty()
        if event & (READ | HUNG) and not self.wire.closed:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.wire.receive()
        except OSError:
            self._ended(broken=True)
            return
        if data is None:
            return
        if not data:
            self._ended(broken=False)
            return
        client = self._client
        if client is None:
            self.relay.drop(self)
        elif client.state == "tunnel":
            self.wire.read(client.answer(data))
        elif self._response is not None:
            self._pass_on(client, data, b"")
        else:
            self._in += data
            try:
                self._take_head(client)
            except Refused as refused:
                client.refuse(refused.status, refused.why)

    def _take_head(self, client: Client) -> None:
        while self._response is None and client.head is not None:
            end = self._in.find(b"\r\n\r\n")
            if end > MAX_HEAD_BYTES or (end < 0 and len(self._in) > MAX_HEAD_BYTES):
                raise Refused(502, "the head of the backend's answer is too large")
            if end < 0:
                self.wire.hurry()
                return
            head = response_head(bytes(self._in[:end]), client.head.method)
            del self._in[: end + 4]
            if head.interim:
                if client.head.modern:
                    client.answer(head.forward + b"\r\n")
                continue
            self._response, self._body = head, Body(head.framing)
            rest = bytes(self._in)
            self._in.clear()
            if head.status == 101:
                self._switch_protocols(client, head, rest)
                return
            closing = client.head.close or head.framing == "until-close" or self.relay.stopping
            self._pass_on(client, rest, head.forward + (b"Connection: close\r\n\r\n" if closing else b"\r\n"))

    def _switch_protocols(self, client: Client, head: ResponseHead, rest: bytes) -> None:
        if client.head is None or not client.head.upgrade:
            self._response = None
            raise Refused(502, "the backend changed the protocol unasked")
        client.answer(head.forward + b"\r\n" + rest)
        client.tunnel()

    def _pass_on(self, client: Client, data: bytes, head: bytes) -> None:
        """Send a part of the answer's body, after its head where that has not gone yet."""
        if self._body.done:
            taken = 0
        else:
            try:
                taken = self._body.feed(data)
            except Refused:
                client.vanish(reset=True)
                return
        part = data if taken == len(data) else data[:taken]
        more = client.answer(head + part if head else part)
        if self._body.done:
            self._complete(client, clean=taken == len(data))
        else:
            self.wire.hurry()
            self.wire.read(more)

    def _complete(self, client: Client, *, clean: bool) -> None:
        response = self._response
        reusable = clean and response is not None and response.keep and client.sent and not self.wire.out
        closing = response is not None and response.framing == "until-close"
        self._release()
        self._used = True
        self.touched = self.relay.loop.now
        if reusable and not self.wire.deaf:
            self.wire.read(True)
            self.relay.give(self)
        else:
            self.wire.close()
        client.answered(closing=closing)

    def _unreachable(self) -> None:
        client, unsent = self._client, self.wire.out[:]
        self._release()
        self.wire.close()
        if client is not None:
            client.repeat(unsent, self.port)

    def _ended(self, *, broken: bool) -> None:
        """The backend closed the connection, or it broke."""
        client = self._client
        if client is None:
            self.relay.drop(self)
        elif client.state == "tunnel" and not broken:
            client.tunnel_ended()
        elif self._response is None and not self._in and client.may_repeat(self.port, used=self._used):
            self._release()
            self.wire.close()
            client.repeat()
        elif self._response is None:
            client.refuse(502, "the backend ended without an answer")
        elif self._response.framing == "until-close" and not broken:
            self._complete(client, clean=False)
        else:
            client.vanish(reset=True)
