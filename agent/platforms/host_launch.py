"""How an entry is run on a bare host: what cannot be, the command line, the environment. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.actions import ModelPoint, Staged
from agent.platforms.host_files import variables
from agent.platforms.host_records import is_key
from agent.wire.release import Entry

_PLACEHOLDER: Final = re.compile(r"\{(port|model|name|workload)\}")
_VARIABLE: Final = re.compile(r"[^=\0]+\Z")
_NO_NUL: Final = re.compile(r"[^\0]*\Z")
_PROTOCOLS: Final = ("", "v2", "http")


def refusal(entry: Entry) -> str:
    """Return why a host cannot run the entry, or an empty string."""
    if not is_key(f"{entry.kind}/{entry.name}"):
        return "its name is no DNS label"
    if entry.delivery in ("container", "chart"):
        return f"platform host runs no {entry.delivery}s: use delivery server or file"
    bad = sorted(name for name in entry.values if not _VARIABLE.match(name))
    if bad:
        return f"the value {bad[0]!r} is no name of an environment variable"
    texts = (*entry.values.values(), *(() if entry.runtime is None else entry.runtime.command))
    if not all(_NO_NUL.match(text) for text in texts):
        return "a value or an argument holds a NUL byte"
    if entry.delivery == "file":
        return "" if entry.self_test is None else "delivery file has nobody to ask the self-test: remove selfTest"
    return _refused_program(entry)


def _refused_program(entry: Entry) -> str:
    runtime = entry.runtime
    if runtime is None or not runtime.command:
        if entry.kind == "workload":
            return "the workload has no program for platform host: set spec.host.command"
        return (
            f"runtime {'' if runtime is None else runtime.name} has no command for platform host: set spec.host.command"
        )
    if runtime.protocol not in _PROTOCOLS:
        return f"protocol {runtime.protocol!r} is not known here"
    if entry.delivery == "server" and not takes_port(entry):
        return f"the host command of runtime {runtime.name} has no {{port}}"
    if entry.self_test is not None and runtime.protocol != "v2":
        return "a self-test needs a runtime of protocol v2"
    return ""


def takes_port(entry: Entry) -> bool:
    """Tell whether the entry's program listens: it gets a backend port, and a stable one in front."""
    return entry.runtime is not None and any("{port}" in argument for argument in entry.runtime.command)


def command(staged: Staged, port: int) -> list[str]:
    """Return program and arguments with the placeholders replaced, each once."""
    runtime = staged.entry.runtime
    model = staged.model or staged.content
    words = {
        "port": str(port),
        "name": staged.entry.name,
        "model": "" if model is None else str(model),
        "workload": "" if staged.content is None else str(staged.content),
    }
    arguments = () if runtime is None else runtime.command
    return [_PLACEHOLDER.sub(lambda found: words[found[1]], argument) for argument in arguments]


def environment(
    staged: Staged, points: Sequence[ModelPoint], home: Path, models_file: Path, path: str
) -> Mapping[str, str]:
    """Return the whole environment of an entry's process: nothing of the agent's own comes along but its PATH.

    Args:
        points: the models it uses.
        home: the directory it runs in.
        models_file: its ``models.json``.
        path: where programs are looked for.
    """
    used = {use.name for use in staged.entry.models}
    return {
        "PATH": path,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **variables([one for one in points if one.name in used or not used]),
        **({"EDGEFERRY_MODELS": str(models_file)} if points else {}),
        **staged.entry.values,
    }
