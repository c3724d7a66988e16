"""Settings of one agent: ``agent.json`` in its state directory, written by ``join`` and by people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from agent.wire.errors import Stop

FILE: Final = "agent.json"


class BadConfig(Stop):
    """``agent.json`` is missing or not what it should be."""

    code = "EF4001"


@dataclass(frozen=True, slots=True)
class Config:
    """Where the agent's things are and how long it waits. Secrets stand in files of their own.

    Attributes:
        cluster: name of this cluster.
        fleet: id of the fleet, pinned at join.
        platform: ``host`` or ``kubernetes``.
        hub: base URL of the hub; empty where the overlay comes by Git or from a folder.
        git: URL of a fleet repository (hub or any Git host); empty for none.
        git_ref: ref with this cluster's overlay at its root, or a branch of the whole fleet repository.
        folder: directory with the overlay, or with a checkout of the whole fleet repository; empty for none.
        reports: URL of a report repository, where reports go without a hub; empty for ``STATE/report`` alone.
        store: where ``hub://`` artifacts come from: empty for the hub itself, else ``oci://…``, ``https://…``
            or a directory (OCI layout).
        ca: file with certificates to trust besides the system's; empty for none.
        wait_s: how long a poll of the hub stays open; the pause between polls of Git and folders.
        look_s: pause between looks at what runs.
        report_s: a report goes to the hub so often even when nothing changed; 0 for only then.
        start_deadline_s: a started entry must be ready within this.
        probation_s: a switched entry must stay healthy so long before the way back closes.
        drain_s: a replaced entry finishes its requests within this.
        first_port, last_port: for stable ports and backends of a host.
        listen: address of a host's stable ports; another than the loopback lets other machines ask its models.
        kubeconfig: empty for the pod's own account.
        facts: file with the site's own facts; empty for ``facts.yaml`` in the state directory, if it is there.
        helm: program that installs charts; empty for ``helm`` on PATH.
        scope: ``namespace`` or ``cluster``: may the agent apply cluster-scoped kinds?
        file_roots: directories that ``file://`` artifacts may come from; empty for none.
        insecure_registries: ``host:port`` of registries that may be asked over plain HTTP; the loopback always may.
        least_sequence: releases below this one are replays: what the hub said at the join.
    """

    cluster: str
    fleet: str
    platform: str = "host"
    hub: str = ""
    git: str = ""
    git_ref: str = ""
    folder: str = ""
    reports: str = ""
    store: str = ""
    ca: str = ""
    wait_s: float = 30.0
    look_s: float = 5.0
    report_s: float = 60.0
    start_deadline_s: float = 120.0
    probation_s: float = 30.0
    drain_s: float = 10.0
    first_port: int = 18000
    last_port: int = 18999
    listen: str = "127.0.0.1"
    kubeconfig: str = ""
    facts: str = ""
    helm: str = ""
    scope: str = "namespace"
    file_roots: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    least_sequence: int = 0


def load_config(state: Path) -> Config:
    """Read ``agent.json`` of a state directory.

    Raises:
        BadConfig: there is none, or a setting is unknown or of the wrong kind.
    """
    path = state / FILE
    try:
        return read_config(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise BadConfig(
            "this agent has not joined a fleet", where=str(path), do="run `edgeferry-agent join --help`"
        ) from None


def read_config(data: bytes, where: str) -> Config:
    """Read settings.

    Raises:
        BadConfig: not JSON, or a setting is unknown or of the wrong kind.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"not JSON: {error}", where=where, do="mend the file, or join again") from None
    known = {field.name: field for field in fields(Config)}
    if not isinstance(values, dict) or not values.keys() <= known.keys():
        unknown = sorted(set(values) - set(known)) if isinstance(values, dict) else values
        raise BadConfig(f"unknown settings {unknown!r}", where=where, do=f"known are {', '.join(sorted(known))}")
    wrong = [name for name, value in values.items() if not _fits(value, str(known[name].type))]
    if wrong or not {"cluster", "fleet"} <= values.keys():
        raise BadConfig(
            f"missing or of the wrong kind: {', '.join(wrong) or 'cluster, fleet'}",
            where=where,
            do="mend the file, or join again",
        )
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Config(**settings)


def dump_config(config: Config) -> bytes:
    """Return ``agent.json``; settings at their default are left out."""
    defaults = Config(config.cluster, config.fleet)
    values = {
        name: value
        for name, value in asdict(config).items()
        if name in ("cluster", "fleet") or value != getattr(defaults, name)
    }
    return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"


def _fits(value: object, kind: str) -> bool:
    if kind == "float":
        return type(value) in (int, float) and value >= 0  # type: ignore[operator]  # the line before says that it is a number
    if kind == "int":
        return type(value) is int and value >= 0
    if kind == "str":
        return type(value) is str
    return isinstance(value, list) and all(type(item) is str for item in value)
