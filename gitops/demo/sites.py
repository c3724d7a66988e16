"""A site as it is seen from outside, whatever platform it is: addresses, answers, and what runs there."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from gitops.demo.places import Place
from gitops.demo.processes import BIN, Background, run
from gitops.demo.reap import belonging

Kind = Literal["model", "workload"]

_PROGRAMS: Final[Mapping[Kind, bytes]] = {"model": b"edgeferry-onnx-runtime", "workload": b"main.py"}


class Site(Protocol):
    """What scenarios ask of a site."""

    name: str
    place: Place
    """Where its addresses are reached from."""

    def url(self, name: str) -> str:
        """Return where a model or workload answers; empty for nowhere."""

    def running(self, kind: Kind) -> tuple[str, ...]:
        """Return what identifies each process or pod of the site that runs a model, or a workload; sorted."""

    def staged(self, model: str) -> list[tuple[str, ...]]:
        """Return what identifies every staged file of a model: the same again when nothing was written."""

    def leftovers(self) -> list[str]:
        """Return what of ours is still there besides the agent."""

    def put_foreign(self) -> None:
        """Put something there that is not ours, beside what is."""

    def foreign(self) -> str:
        """Return what is there of it; empty for nothing."""

    def log(self) -> str:
        """Return the last lines of the agent's log."""

    def stop(self) -> None:
        """End the agent."""


@dataclass(slots=True)
class HostSite:
    """A bare host with its agent.

    Attributes:
        state: directory of the agent.
        place: where it runs.
        agent: its process; None while there is none.
    """

    name: str
    state: Path
    place: Place = field(default_factory=Place)
    agent: Background | None = None
    _urls: dict[str, str] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        """Return what `edgeferry-agent status` says."""
        out = run([str(BIN / "edgeferry-agent"), "status", "--state", str(self.state), "--output", "json"])
        value: dict[str, Any] = json.loads(out)
        return value

    def url(self, name: str) -> str:
        """Return where a model or workload answers. The address never changes once it is given."""
        if not self._urls.get(name):
            self._urls[name] = next((str(one["url"]) for one in self.status()["entries"] if one["name"] == name), "")
        return self._urls[name]

    def running(self, kind: Kind) -> tuple[str, ...]:
        """Return the process ids, found by the command lines."""
        program, found = _PROGRAMS[kind], []
        for pid in belonging(self.state):
            try:
                if program in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(str(pid))
            except OSError:
                continue
        return tuple(sorted(found))

    def staged(self, model: str) -> list[tuple[str, ...]]:
        """Return path, inode and time of every file."""
        files = (self.state / "content").rglob(f"{model}.onnx")
        return sorted((str(one), str(one.stat().st_ino), str(one.stat().st_mtime_ns)) for one in files)

    def leftovers(self) -> list[str]:
        """Return processes, and stable paths of models."""
        ours = (*self.running("model"), *self.running("workload"))
        return [*ours, *map(str, (self.state / "models").glob("*/current"))]

    def put_foreign(self) -> None:
        """Put a file beside the models."""
        path = self.state / "models" / "notes.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("not ours")

    def foreign(self) -> str:
        """Return the file's content."""
        path = self.state / "models" / "notes.txt"
        return path.read_text() if path.exists() else ""

    def log(self) -> str:
        """Return the last lines of the agent's log."""
        return "" if self.agent is None else self.agent.tail()

    def stop(self) -> None:
        """End the agent; what it started goes on."""
        if self.agent is not None:
            self.agent.stop()


def get(
    url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, ca: Path | None = None
) -> bytes | None:
    """Return the answer's body; None where nobody answers, or not with success. ``ca``: who vouches for https."""
    try:
        context = ssl.create_default_context(cafile=ca) if url.startswith("https:") else None
        asked = urllib.request.Request(url, body, dict(headers or {}))
        with urllib.request.urlopen(asked, timeout=5, context=context) as response:
            data: bytes = response.read()
            return data
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return None
