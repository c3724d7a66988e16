"""The line between a site and the hub: cut, restored, slowed, made to lose packets, and counted."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster import processes, tools

_STATE: Final = struct.Struct("<8Q")
_NAME: Final = "wan"


@dataclass(frozen=True, slots=True)
class Link:
    """One line; what is set holds for the next packet and stays until it is set again.

    Attributes:
        folder: of the site whose line it is; ``wan.state`` in it is shared with the process that carries the packets.
    """

    folder: Path

    def start(self, hub_net: str, hub_device: str, site_net: str, site_device: str, *, dies_with_us: bool) -> None:
        """Lay the line between two network namespaces, given by path; the devices are made.

        Raises:
            processes.NotUp: it cannot be laid; the end of its log says why.
        """
        state = self.folder / "wan.state"
        if not state.exists():
            state.write_bytes(_STATE.pack(*[0] * 8))
        log = self.folder / "logs" / f"{_NAME}.log"
        log.unlink(missing_ok=True)
        command: list[str | Path] = [tools.compiled(_NAME), state, hub_net, hub_device, site_net, site_device]
        processes.start(self.folder, _NAME, command, dies_with_us=dies_with_us)
        processes.until(lambda: log.exists() and "ready" in log.read_text(), "the link", self.folder, _NAME)

    def cut(self) -> None:
        """Lose every packet, those on the way too."""
        self._set(0, 1)

    def restore(self) -> None:
        """Carry packets again; delay, loss and rate are as they were."""
        self._set(0, 0)

    def shape(
        self, *, delay_ms: float = 0.0, jitter_ms: float = 0.0, loss: float = 0.0, rate_mbit: float = 0.0
    ) -> None:
        """Set what the line does to packets, in both directions; what is not given is none.

        Args:
            delay_ms: one way.
            jitter_ms: the delay is this much more or less, evenly; packets keep their order.
            loss: share of the packets that are lost, 0 to 1.
            rate_mbit: at most so much; a packet that would wait longer than 0.5 s is lost. 0: no limit.
        """
        values = (delay_ms * 1000, jitter_ms * 1000, loss * 1_000_000, rate_mbit * 1_000_000)
        for index, value in enumerate(values, start=1):
            self._set(index, round(value))

    @property
    def is_cut(self) -> bool:
        """Whether it loses everything."""
        return bool(self._get(0))

    @property
    def bytes_to_site(self) -> int:
        """Ethernet bytes delivered to the site since the line was laid first."""
        return self._get(5)

    @property
    def bytes_to_hub(self) -> int:
        """Ethernet bytes delivered to the hub since the line was laid first."""
        return self._get(6)

    @property
    def lost(self) -> int:
        """Packets lost, in both directions, since the line was laid first."""
        return self._get(7)

    def _get(self, index: int) -> int:
        return int(_STATE.unpack((self.folder / "wan.state").read_bytes())[index])

    def _set(self, index: int, value: int) -> None:
        with (self.folder / "wan.state").open("r+b", buffering=0) as file:
            file.seek(8 * index)
            file.write(value.to_bytes(8, "little"))
