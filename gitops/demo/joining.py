"""S8: a site joins over TLS by one line, proves itself by its certificate, and is revoked."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gitops.demo.documents import cluster, placement
from gitops.demo.fleet import Fleet, Wrong, free_port
from gitops.demo.processes import BIN, environment
from gitops.demo.seen import runtimes, same

_KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%d"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def registration(fleet: Fleet) -> Iterator[str]:
    """S8: token, a wrong API server address, the right line, the token again, and revocation."""
    fleet.init(empty=True)
    fleet.commit("One site", dict(cluster("milan-01", line="welding")) | placement("digits", model="digits"))
    fleet.start_hub("--tls-name", fleet.place.address)
    token, command = fleet.join_line("milan-01")
    if "--ca-hash" not in command:
        raise Wrong(f"the line does not pin the hub's authority: {command}")
    yield "1. One line to paste: a token, and the hash of the hub's certificate authority"

    config = fleet.root / "kubeconfig"
    config.write_text(_KUBECONFIG % free_port())
    refused = attempt(fleet, token, [*command, "--platform", "kubernetes", "--kubeconfig", str(config)], "wrong")
    if "EF4201" not in refused or str(config) not in refused:
        raise Wrong(f"the fault does not name the setting: {refused}")
    yield f"2. A wrong API server address: {refused.strip().splitlines()[-1][:160]}"

    fleet.join("milan-01", line=(token, command))
    fleet.expect({"milan-01": "1.0.0"})
    fleet.until("the hub shows it current", lambda: fleet.seen("milan-01")["health"] == "current")
    state = fleet.host("milan-01").state
    if not (state / "client.pem").exists() or (state / "credential").exists():
        raise Wrong("the site does not prove itself by a certificate")
    yield "3. Corrected, with the same token: it is current, and proves itself by a certificate for its own key"

    refused = attempt(fleet, token, command, "thief")
    if "EF4030" not in refused:
        raise Wrong(f"the token was taken again: {refused}")
    refused = attempt(fleet, *fleet.join_line("milan-01"), "other")
    if "EF3151" not in refused and "another machine" not in refused:
        raise Wrong(f"another machine took the name: {refused}")
    yield "4. The token used again by another machine is refused, and so is the name with a fresh one"

    before = runtimes(fleet, "milan-01")
    fleet.edgeferry("cluster", "revoke", "milan-01", "--state", str(fleet.hub_state))
    fleet.until("the agent hears it", lambda: "EF4024" in fleet.host("milan-01").log(), within_s=15)
    same("the processes at the site", before, runtimes(fleet, "milan-01"))
    fleet.expect({"milan-01": "1.0.0"})
    yield "5. Revoked: the open connection ends, and what runs goes on"


def attempt(fleet: Fleet, token: str, command: list[str], name: str) -> str:
    """Run a join line that must fail, and return what it said."""
    state = Path(fleet.root, "sites", name)
    done = subprocess.run(
        [*fleet.place.words, str(BIN / command[0]), *command[1:], "--state", str(state)],
        env=environment({"EDGEFERRY_TOKEN": token}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        raise Wrong(f"the join went through: {done.stdout}")
    return done.stderr
