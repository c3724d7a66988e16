"""Playing cells: bring a site into a phase, have the fault, end it, and check from outside, each time the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from gitops.demo.fleet import Wrong
from gitops.demo.processes import BIN
from tests.faults.matrix import Cell
from tests.faults.site import SITE, Watcher, World, agent_command, with_suppressed

BREAKS_SERVICE: Final = frozenset({"power-cut", "model-killed", "file-corrupted", "disk-read-only"})
"""After these something must serve again, within time; during all others it never stops."""

LOSES_EVENTS: Final = frozenset({"hub-restored"})
"""The hub's own memory is older than what was acknowledged: what it had is gone; order and uniqueness are kept."""

_HOLD_S: Final = 1.5


def play(world: World, cell: Cell) -> None:
    """Play one cell.

    Raises:
        Wrong: something is not as it must be.
    """
    world.until("it is calm before", lambda: world.phase == "idle" and world.answer == world.wanted)
    if cell.phase == "joining":
        _join_meanwhile(world, cell)
        return
    serving = world.answer
    backup = _backup(world) if cell.fault == "hub-restored" else None
    watcher = Watcher(world)
    try:
        _enter(world, cell.phase)
        with _fault(world, cell.fault, backup):
            _last(_HOLD_S)
        _lead_out(world, cell)
    finally:
        answers = watcher.stop()
    _check_answers(world, cell, serving, answers)
    _check(world, cell)


def _enter(world: World, phase: str) -> None:
    match phase:
        case "idle":
            return
        case "pruning":
            world.remove()
            world.until("it is being removed", lambda: world.phase in ("removing", ""))
            return
        case "fetching":
            world.link.set("cut")
            world.push()
            world.until("it is published", lambda: _published(world) > _reported(world))
            world.link.set("open")
        case "staging":
            world.link.set("slow")
            world.push()
            world.until("bytes are on their way", lambda: world.partial_bytes > 0 or world.answer == world.wanted)
            world.link.set("open")
        case "switching":
            world.push()
            phases = ("starting", "testing", "switching", "probation")
            world.until("it is being brought up", lambda: world.phase in phases or world.answer == world.wanted)
        case "probation":
            world.push()
            world.until("it is in probation", lambda: world.phase == "probation" or world.answer == world.wanted)


@contextmanager
def _fault(world: World, name: str, backup: Path | None) -> Iterator[None]:
    """Have one fault for as long as the block lasts."""
    with ExitStack() as stack:
        undo = _BEGIN[name](world)
        if undo is not None:
            stack.callback(undo)
        if backup is not None:
            _restore(world, backup)
        yield


def _lead_out(world: World, cell: Cell) -> None:
    """Bring the site to the newest state that people ask for, after the fault has ended."""
    if cell.phase == "pruning":
        world.until("nothing serves", lambda: world.answer == "" and world.phase == "")
        world.place()
    elif cell.phase == "idle" or cell.fault in ("history-rewritten", "hub-restored"):
        world.push()


def _check_answers(world: World, cell: Cell, serving: str, answers: list[str]) -> None:
    """Something that was serving is serving, and what serves is whole: one of the versions, never a mixture."""
    known = {f"version {number + 1}" for number in range(world.number)}
    if strange := set(answers) - known - {""}:
        raise Wrong(f"{cell.name}: answered {strange}")
    gaps = answers.count("")
    if gaps and cell.fault not in BREAKS_SERVICE and cell.phase != "pruning":
        raise Wrong(f"{cell.name}: {serving} served, and {gaps} of {len(answers)} requests got no answer")


def _check(world: World, cell: Cell) -> None:
    """What must hold after every fault."""
    world.until(f"{cell.name}: the newest version serves", lambda: world.answer == world.wanted)
    world.until(f"{cell.name}: it is committed", lambda: world.phase == "idle")
    if not world.foreign.exists() or world.foreign.read_text() != "not ours":
        raise Wrong(f"{cell.name}: a foreign file was touched")
    seen: dict[str, Any] = {}

    def told() -> bool:
        seen.update(world.fleet.seen(SITE))
        entries = seen["entries"]
        return seen["health"] == "current" and [one["version"] for one in entries] == [f"{world.number}.0.0"]

    world.until(f"{cell.name}: the hub knows", told)
    world.until(f"{cell.name}: no event waits", lambda: _pending(world) == 0)
    numbers = [one["number"] for one in world.fleet.events(SITE)]
    if numbers != sorted(set(numbers)):
        raise Wrong(f"{cell.name}: events twice or out of order: {numbers}")
    whole = not any(name in world.heads for name in LOSES_EVENTS)
    if whole and numbers != list(range(1, len(numbers) + 1)):
        raise Wrong(f"{cell.name}: events are lost: {numbers}")


def _join_meanwhile(world: World, cell: Cell) -> None:
    """Join another site while the fault lasts; after it has ended, the same token and state must do."""
    world.guests += 1
    guest = f"guest-{world.guests}"
    state = world.root / guest
    state.mkdir()
    token, _ = world.fleet.join_line(guest)
    command = [str(BIN / "edgeferry-agent"), "join", "--hub", world.link.url, "--cluster", guest]

    def join(timeout_s: float) -> int:
        environment = {**os.environ, "EDGEFERRY_TOKEN": token}
        words = [*command, "--state", str(state)]
        try:
            return subprocess.run(
                words, env=environment, capture_output=True, timeout=timeout_s, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return -1

    with _fault(world, cell.fault, None):
        join(3.0)
    if cell.fault == "name-unknown":
        world.until("it is calm again", lambda: world.answer == world.wanted)
    world.until(f"{cell.name}: joined", lambda: join(30.0) == 0)
    world.until(f"{cell.name}: the hub knows it", lambda: world.fleet.seen(guest)["joined"])
    if not world.answer:
        raise Wrong(f"{cell.name}: the first site stopped serving")


def _last(seconds: float) -> None:
    """Let the fault last."""
    threading.Event().wait(seconds)


def _published(world: World) -> int:
    return int(world.fleet.seen(SITE)["published"])


def _reported(world: World) -> int:
    return int(world.fleet.seen(SITE)["sequence"])


def _pending(world: World) -> int:
    out = agent_command(world.state, "status", "--output", "json").stdout
    return int(json.loads(out)["eventsPending"]) if out else -1


# ---- the faults: each begins, and returns how it ends


def _link(mode: str) -> Callable[[World], Callable[[], None]]:
    def begin(world: World) -> Callable[[], None]:
        world.link.set(mode)  # type: ignore[arg-type]  # the table below has only modes
        return lambda: world.link.set("open")

    return begin


def _name_unknown(world: World) -> Callable[[], None]:
    path = world.state / "agent.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"127.0.0.1", b"hub.invalid", 1))
    _restart_agent(world)

    def end() -> None:
        path.write_bytes(before)
        _restart_agent(world)

    return end


def _hub_gone(world: World) -> Callable[[], None]:
    world.stop_hub()
    return world.start_hub


def _hub_restored(world: World) -> None:
    world.heads.append("hub-restored")


def _hub_deaf(world: World) -> Callable[[], None]:
    assert world.fleet.hub is not None
    process = world.fleet.hub.process
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


def _history_rewritten(world: World) -> None:
    world.fleet.git("commit", "--quiet", "--amend", "--allow-empty", "--message", f"rewritten {world.number}")
    world.fleet.git("push", "--quiet", "--force", "origin", "main")


def _store_wrong(world: World) -> Callable[[], None]:
    blobs = world.fleet.hub_state / "artifacts" / "blobs" / "sha256"
    before = {path: path.read_bytes() for path in blobs.iterdir() if path.stat().st_size > 50_000}
    for path, data in before.items():
        path.chmod(0o644)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    def end() -> None:
        for path, data in before.items():
            path.write_bytes(data)

    return end


def _disk_full(world: World) -> Callable[[], None]:
    filler = world.state / "filler"
    with filler.open("wb") as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    return lambda: filler.unlink()


def _disk_read_only(world: World) -> Callable[[], None]:
    """The machine comes up again with a disk that takes no writes: one with open files cannot be made so."""
    world.fleet.lose_power(SITE)
    subprocess.run(["mount", "-o", "remount,ro", str(world.state)], check=True, capture_output=True)
    world.boot()

    def end() -> None:
        subprocess.run(["mount", "-o", "remount,rw", str(world.state)], check=True, capture_output=True)
        _restart_agent(world)

    return end


def _file_corrupted(world: World) -> None:
    """Change the model file of what serves: its oldest process has read it already."""
    found = sorted((Path(f"/proc/{pid}").stat().st_mtime_ns, pid) for pid in _model_processes(world))
    if found:
        words = Path(f"/proc/{found[0][1]}/cmdline").read_bytes().split(b"\0")
        path = Path(os.fsdecode(words[-2]))
        path.chmod(0o644)
        path.write_bytes(b"version 0\n" + bytes(119_000))


def _agent_killed(world: World) -> Callable[[], None]:
    agent = world.fleet.host(SITE).agent
    assert agent is not None
    agent.stop(how=signal.SIGKILL)
    return lambda: world.fleet.start_agent(SITE)


def _agent_stopped(world: World) -> Callable[[], None]:
    agent = world.fleet.host(SITE).agent
    assert agent is not None
    agent.process.send_signal(signal.SIGSTOP)
    return lambda: agent.process.send_signal(signal.SIGCONT)


def _power_cut(world: World) -> Callable[[], None]:
    world.fleet.lose_power(SITE)
    return world.boot


def _model_killed(world: World) -> None:
    for pid in _model_processes(world):
        with_suppressed(lambda pid=pid: os.kill(pid, signal.SIGKILL))  # type: ignore[misc]


def _model_processes(world: World) -> list[int]:
    """Return the model servers of the site, found by their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"-c" in words and os.fsencode(world.state) in b"".join(words):
            found.append(int(entry.name))
    return found


def _second_agent(world: World) -> Callable[[], None]:
    refused = agent_command(world.state, "run")
    if refused.returncode == 0 or "EF4050" not in refused.stderr:
        raise Wrong(f"a second agent was not refused: {refused.stderr}")
    return lambda: None


def _restart_agent(world: World) -> None:
    agent = world.fleet.host(SITE).agent
    assert agent is not None
    agent.stop()
    world.fleet.start_agent(SITE)


def _backup(world: World) -> Path:
    """Copy the hub's state while it stands still."""
    place = world.root / "backup"
    shutil.rmtree(place, ignore_errors=True)
    world.stop_hub(signal.SIGTERM)
    shutil.copytree(world.fleet.hub_state, place)
    world.start_hub()
    return place


def _restore(world: World, place: Path) -> None:
    world.stop_hub()
    shutil.rmtree(world.fleet.hub_state)
    shutil.copytree(place, world.fleet.hub_state)
    world.start_hub()


_BEGIN: Final[dict[str, Callable[[World], Callable[[], None] | None]]] = {
    "link-cut": _link("cut"),
    "link-half-open": _link("mute"),
    "link-slow": _link("slow"),
    "link-garbled": _link("garbled"),
    "name-unknown": _name_unknown,
    "hub-gone": _hub_gone,
    "hub-restored": _hub_restored,
    "hub-deaf": _hub_deaf,
    "history-rewritten": _history_rewritten,
    "store-wrong": _store_wrong,
    "disk-full": _disk_full,
    "disk-read-only": _disk_read_only,
    "file-corrupted": _file_corrupted,
    "agent-killed": _agent_killed,
    "agent-stopped": _agent_stopped,
    "power-cut": _power_cut,
    "model-killed": _model_killed,
    "second-agent": _second_agent,
}
