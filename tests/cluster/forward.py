"""Makes addresses of a network namespace reachable from outside: ``forward NET PORT=HOST:PORT …``.

It listens on 127.0.0.1 where it is started, then moves into the namespace and connects there. Standard library only.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
from contextlib import suppress
from functools import partial

_CLONE_NEWNET = 0x40000000


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _carry(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        theirs, ours = await asyncio.open_connection(host, port)
    except OSError:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, ours), _copy(theirs, writer))
    finally:
        for one in (ours, writer):
            one.close()


async def _main(net: str, routes: list[str]) -> None:
    listeners = []
    for route in routes:
        port, _, target = route.partition("=")
        host, _, target_port = target.rpartition(":")
        listeners.append((socket.create_server(("127.0.0.1", int(port)), backlog=256), host, int(target_port)))
    file = os.open(net, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(file, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {net}")
    servers = [
        await asyncio.start_server(partial(_carry, host, target_port), sock=listener)
        for listener, host, target_port in listeners
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2:]))
