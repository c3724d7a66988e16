"""Reading request bodies that may be hostile: too large, too slow, or larger than they look."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from gitops.serve.faults import BadRequest, BodyTooLarge, TooSlow

IDLE_S: Final = 30.0
"""A body must go on arriving within this."""

WHOLE_S: Final = 600.0
"""And be complete within this."""

LINGER_BYTES: Final = 4 << 20
"""A refused body up to this is let pass, so that its sender is still there to read why; a longer one is cut off."""

LINGER_S: Final = 5.0


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Return the body, unpacked where ``Content-Encoding: gzip`` says so; at most ``most_bytes`` either way.

    Raises:
        BodyTooLarge: it is longer, packed or unpacked.
        TooSlow: it did not arrive in time.
        BadRequest: cut short, not gzip, or in another encoding.
    """
    body = bytearray()
    async for chunk in chunks(request, most_bytes):
        body += chunk
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return bytes(body)
    if encoding not in ("gzip", "x-gzip"):
        raise BadRequest(f"content encoding {encoding[:40]!r}", do="send it plain or as gzip")
    return gunzip(bytes(body), most_bytes)


async def chunks(request: Request, most_bytes: int, whole_s: float = WHOLE_S) -> AsyncIterator[bytes]:
    """Give the body as it was sent, piece by piece.

    Raises:
        BodyTooLarge: it is longer than ``most_bytes``.
        TooSlow: it did not arrive in time.
        BadRequest: cut short.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        if int(announced) <= LINGER_BYTES:
            await _let_pass(request)
        raise BodyTooLarge(f"{announced} bytes, at most {most_bytes}")
    left, loop = most_bytes, asyncio.get_running_loop()
    deadline = loop.time() + whole_s
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(min(IDLE_S, deadline - loop.time())):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            left -= len(chunk)
            if left < 0:
                raise BodyTooLarge(f"more than {most_bytes} bytes")
            yield chunk
    except TimeoutError:
        raise TooSlow(f"the body did not arrive: {IDLE_S:.0f} s of silence, or {whole_s:.0f} s in all") from None
    except ClientDisconnect:
        raise BadRequest("the body was cut short") from None


async def _let_pass(request: Request) -> None:
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(LINGER_S):
            async for _ in request.stream():
                pass


def gunzip(data: bytes, most_bytes: int) -> bytes:
    """Return the unpacked bytes, never more than ``most_bytes``.

    Raises:
        BodyTooLarge: there would be more.
        BadRequest: not one complete gzip stream.
    """
    inflate = zlib.decompressobj(31)
    try:
        plain = inflate.decompress(data, most_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"not gzip: {error}") from None
    if len(plain) > most_bytes:
        raise BodyTooLarge(f"more than {most_bytes} bytes when unpacked")
    if not inflate.eof or inflate.unused_data:
        raise BadRequest("not one complete gzip stream")
    return plain
