"""S9: a bad version meets the canary, and nobody else ever does."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gitops.demo.documents import cluster, placement, version
from gitops.demo.fleet import Fleet, Wrong
from gitops.demo.seen import Client, fleet_git, overlay_of, same

_ROLLOUT = {
    "waves": [{"name": "canary", "matchLabels": {"tier": "canary"}}, {"percent": 100}],
    "soak": "2s",
    "maxConcurrent": 1,
}


def bad_version(fleet: Fleet) -> Iterator[str]:
    """S9: a version crashes at start on the canary; it is taken back, held, and the next one goes through."""
    fleet.init(empty=True)
    files = cluster("canary", tier="canary") | cluster("second", tier="prod") | cluster("third", tier="prod")
    files |= placement("digits", model="digits", rollout=_ROLLOUT)
    fleet.commit("Three sites, one of them the canary", {**files, **version("digits", "2.0.0")})
    fleet.start_hub()
    for name in ("canary", "second", "third"):
        fleet.join(name)
    everywhere = dict.fromkeys(("canary", "second", "third"), "2.0.0")
    fleet.expect(everywhere, within_s=90)
    _until_stands(fleet, "complete")
    yield "1. 2.0.0 serves everywhere, the canary first"

    client = Client(fleet, "canary")
    others = {name: overlay_of(fleet, name) for name in ("second", "third")}
    fleet.commit("digits 2.1.0", {"models/digits/versions/2.1.0/digits.onnx": b"no model at all"})
    _until_stands(fleet, "reverted")
    asked, failed = client.stop()
    if failed or not asked:
        raise Wrong(f"of {asked} requests to the canary {len(failed)} failed: {failed[:3]}")
    yield f"2. 2.1.0 crashes at start on the canary, which goes on with 2.0.0: {asked} requests, none failed"

    same("the other sites' overlays", others, {name: overlay_of(fleet, name) for name in others})
    for name in others:
        if any(event["version"] == "2.1.0" for event in fleet.events(name)):
            raise Wrong(f"{name} had 2.1.0: {fleet.events(name)}")
    title = fleet_git(fleet, "log", "-1", "--format=%s", "main").strip()
    if not title.startswith("Revert rollout"):
        raise Wrong(f"the newest fleet commit is {title!r}")
    yield f"3. Nobody else ever had it; the fleet commit says so: {title}"

    told = fleet.edgeferry("rollout", "show", "digits", "--hub", fleet.hub_url, "--state", str(fleet.hub_state))
    if "reverted" not in told or "canary" not in told:
        raise Wrong(f"`edgeferry rollout show` does not tell it: {told}")
    fleet.expect(everywhere)
    yield f"4. The placement is held: {told.splitlines()[1]}"

    fleet.commit("digits 2.2.0", dict(version("digits", "2.2.0", like="2.1.0")))
    fleet.expect(dict.fromkeys(everywhere, "2.1.0"), within_s=90)
    _until_stands(fleet, "complete")
    yield "5. 2.2.0 goes through: all three serve it"


def _until_stands(fleet: Fleet, phase: str) -> None:
    def stands() -> str:
        place = ("--hub", fleet.hub_url, "--state", str(fleet.hub_state))
        found = json.loads(fleet.edgeferry("rollout", "list", *place, "--output", "json"))["rollouts"]
        return "".join(str(one["phase"]) for one in found if one["name"] == "digits")

    fleet.until(f"the rollout is {phase}", lambda: stands() == phase, 90.0, stands)
