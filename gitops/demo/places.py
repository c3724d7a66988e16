"""Where a process of a fleet runs: on this machine, or in a network of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A network.

    Attributes:
        address: at which a process there listens, and is reached by the others.
        words: before a command that is to run there.
        network: within it this thread's new connections begin there.
        hub: options of a hub that runs there.
    """

    address: str = "127.0.0.1"
    words: tuple[str, ...] = ()
    network: Callable[[], AbstractContextManager[None]] = nullcontext
    hub: tuple[str, ...] = ()
