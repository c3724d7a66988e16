"""Asking an inference server: is it ready, and does it answer the self-test as it should?

The Open Inference Protocol (V2) over HTTP. Bodies differ between servers, so readiness is judged by the status alone.
"""

from __future__ import annotations

import http.client
import json
import math
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from agent.wire.errors import Retry, Stop

MAX_ANSWER_BYTES: Final = 16 << 20
"""A longer answer to a self-test is a failure."""

_STATUS_LINE_BYTES: Final = 13
"""Of ``HTTP/1.1 200 ``: all that a probe reads."""


class SelfTestFailed(Stop):
    """The candidate answered the self-test's question wrongly, or not at all."""

    code = "EF4101"


class NotAnswering(Retry):
    """Nothing listens where the candidate should answer."""

    code = "EF4102"
    delay_s = 1.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One readiness question.

    Attributes:
        port: on ``host``.
        paths: asked in turn for as long as the answer is 404; empty: it is enough that something listens.
    """

    port: int
    paths: tuple[str, ...]
    host: str = "127.0.0.1"


def readiness_paths(protocol: str, path: str, name: str) -> tuple[str, ...]:
    """Return the paths that tell whether a server of ``protocol`` is ready.

    Args:
        protocol: ``v2``, ``http``, or empty for none.
        path: of the readiness check for ``http``.
        name: of the model.
    """
    if protocol == "v2":
        return ("/v2/health/ready", f"/v2/models/{name}/ready")
    return (path or "/",) if protocol == "http" else ()


def probe(probes: Sequence[Probe], timeout_s: float = 0.5) -> tuple[bool, ...]:
    """Ask all at once and return, in the same order, which are ready.

    One thread, one deadline for all of them: it never takes much longer than ``timeout_s``.
    A status from 200 to 299 is ready; everything else, silence included, is not.
    """
    deadline = time.monotonic() + timeout_s
    ready = [False] * len(probes)
    open_: dict[int, int] = dict.fromkeys(range(len(probes)), 0)
    while open_:
        statuses = _statuses({number: (probes[number], step) for number, step in open_.items()}, deadline)
        following: dict[int, int] = {}
        for number, status in statuses.items():
            if status == 404 and open_[number] + 1 < len(probes[number].paths):
                following[number] = open_[number] + 1
            else:
                ready[number] = 200 <= status < 300
        open_ = following
    return tuple(ready)


def _statuses(asked: dict[int, tuple[Probe, int]], deadline: float) -> dict[int, int]:
    """Return the HTTP status per number; 0 for no answer."""
    statuses = dict.fromkeys(asked, 0)
    with selectors.DefaultSelector() as selector:
        sockets: list[socket.socket] = []
        try:
            for number, (one, _) in asked.items():
                connection = socket.socket()
                sockets.append(connection)
                connection.setblocking(False)
                connection.connect_ex((one.host, one.port))
                selector.register(connection, selectors.EVENT_WRITE, (number, bytearray()))
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, events in selector.select(left):
                    number, heard = key.data
                    status = _advance(key.fileobj, events, *asked[number], heard)  # type: ignore[arg-type]  # we registered sockets
                    if status is None:
                        selector.unregister(key.fileobj)
                    elif status:
                        selector.unregister(key.fileobj)
                        statuses[number] = status
                    else:
                        selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
        finally:
            for connection in sockets:
                connection.close()
    return statuses


def _advance(connection: socket.socket, events: int, one: Probe, step: int, heard: bytearray) -> int | None:
    """Do the next thing; return the status, 0 to go on, None when there will be no answer."""
    try:
        if events & selectors.EVENT_WRITE:
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return None
            if not one.paths:
                return 200
            head = f"GET {one.paths[step]} HTTP/1.1\r\nHost: {one.host}:{one.port}\r\nConnection: close\r\n\r\n"
            connection.send(head.encode("ascii", "replace"))
            return 0
        data = connection.recv(4096)
    except OSError:
        return None
    heard += data
    if not data and len(heard) < _STATUS_LINE_BYTES:
        return None
    if len(heard) < _STATUS_LINE_BYTES:
        return 0
    status = bytes(heard[9:12])
    return int(status) if heard.startswith(b"HTTP/1.") and status.isdigit() else None


def self_test(
    base_url: str, name: str, question: bytes, answer: bytes, tolerance: str, *, timeout_s: float = 30.0
) -> None:
    """Put the question to the model and compare what it answers.

    Every field of ``answer`` must be in what comes back; numbers may differ by ``tolerance``; lists are compared by
    position and must be of one length. Fields that ``answer`` does not name may be anything.

    Args:
        base_url: of the inference server, ``http://…``.
        name: of the model: the question goes to ``/v2/models/NAME/infer``.
        question: JSON body of the request.
        answer: the JSON wanted.
        tolerance: decimal number as text.
        timeout_s: for the whole exchange of one read.

    Raises:
        SelfTestFailed: another answer, no answer in time, or the self-test itself is unreadable.
        NotAnswering: nothing listens there.
    """
    where = f"self-test of {name}"
    _read_json(question, where, "the self-test's input")
    _read_json(answer, where, "the self-test's output")
    _tolerance(tolerance, where)
    check_answer(name, _ask(base_url, name, question, timeout_s, where), answer, tolerance)


def check_answer(name: str, body: bytes, answer: bytes, tolerance: str) -> None:
    """Compare what the model answered with what it should, as ``self_test`` does.

    Args:
        name: of the model.
        body: what it answered.
        answer: the JSON wanted.
        tolerance: decimal number as text.

    Raises:
        SelfTestFailed: they differ, or one of them is unreadable.
    """
    where = f"self-test of {name}"
    wanted = _read_json(answer, where, "the self-test's output")
    slack = _tolerance(tolerance, where)
    got = _read_json(body, where, "the answer")
    try:
        difference = compare(wanted, got, slack)
    except RecursionError:
        difference = "it is nested too deep"
    if difference:
        raise SelfTestFailed(
            f"the answer differs: {difference}", where=where, do="mend the model or the self-test in a new commit"
        )


def compare(wanted: Any, got: Any, tolerance: float, place: str = "") -> str:
    """Return where ``got`` first lacks or differs from ``wanted``, or an empty string.

    Args:
        wanted: parsed JSON; every field in it must be in ``got``.
        got: parsed JSON.
        tolerance: numbers may differ by this much, inclusive.
        place: where in the document this is, as ``outputs[0].data``.
    """
    here = place or "the answer"
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return f"{here} is {_short(got)}, wanted an object"
        for name in sorted(wanted):
            inner = f"{place}.{name}" if place else name
            if name not in got:
                return f"{inner} is missing"
            if difference := compare(wanted[name], got[name], tolerance, inner):
                return difference
        return ""
    if isinstance(wanted, list):
        if not isinstance(got, list):
            return f"{here} is {_short(got)}, wanted a list"
        if len(wanted) != len(got):
            return f"{here} has {len(got)} items, wanted {len(wanted)}"
        for number, (one, other) in enumerate(zip(wanted, got, strict=True)):
            if difference := compare(one, other, tolerance, f"{place}[{number}]"):
                return difference
        return ""
    if _is_number(wanted) and _is_number(got):
        same = wanted == got or abs(wanted - got) <= tolerance or (wanted != wanted and got != got)
        slack = f" within {tolerance:g}" if tolerance else ""
        return "" if same else f"{here} is {_short(got)}, wanted {_short(wanted)}{slack}"
    same = type(wanted) is type(got) and wanted == got
    return "" if same else f"{here} is {_short(got)}, wanted {_short(wanted)}"


def _ask(base_url: str, name: str, question: bytes, timeout_s: float, where: str) -> bytes:
    parts = urlsplit(base_url)
    path = f"{parts.path.rstrip('/')}/v2/models/{name}/infer"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("POST", path, question, {"Content-Type": "application/json", "Connection": "close"})
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES + 1)
    except TimeoutError:
        raise SelfTestFailed(
            f"no answer within {timeout_s:g} s", where=where, do="look at the runtime's log on the site"
        ) from None
    except ConnectionRefusedError as error:
        raise NotAnswering(f"{base_url} does not answer: {error}", where=where, do="wait until it listens") from None
    except (OSError, http.client.HTTPException) as error:
        raise SelfTestFailed(
            f"it broke off the connection: {type(error).__name__}: {error}",
            where=where,
            do="look at the runtime's log on the site",
        ) from None
    finally:
        connection.close()
    if len(body) > MAX_ANSWER_BYTES:
        raise SelfTestFailed(f"the answer is longer than {MAX_ANSWER_BYTES} bytes", where=where)
    if response.status != 200:
        said = body[:200].decode(errors="replace")
        raise SelfTestFailed(f"status {response.status}: {said}", where=where, do="mend the model or the self-test")
    return body


def _read_json(data: bytes, where: str, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SelfTestFailed(f"{what} is not JSON: {error}", where=where, do="mend it in a new commit") from None


def _tolerance(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise SelfTestFailed(f"the tolerance {text[:40]!r} is not a number from 0", where=where, do="mend selfTest")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
