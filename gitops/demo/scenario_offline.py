"""The scenario of a site that is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gitops.demo.documents import cluster, document, placement, version
from gitops.demo.fleet import Fleet, Wrong
from gitops.demo.seen import same

QUICK: Final = ("--set", "probation_s=0.5", "--set", "look_s=0.5")
"""Settings that make a site's day shorter."""


def cut_off(fleet: Fleet) -> Iterator[str]:
    """S7: a site is cut off, loses power, serves from its disk, and is right again once the link is back."""
    fleet.init(empty=True)
    files = cluster("milan-01", line="welding") | placement("digits", model="digits")
    files |= {"fleet.yaml": document("Fleet", "fleet", {"offlineAfter": "2s"})}
    fleet.commit("One site", files)
    fleet.start_hub()
    link = fleet.link("milan-01")
    fleet.join("milan-01", *QUICK)
    fleet.expect({"milan-01": "1.0.0"})
    fleet.until("the hub has seen it serve", lambda: fleet.seen("milan-01")["health"] == "current")
    until_told(fleet, "milan-01", ["committed"])
    before = fleet.events("milan-01")
    link.set("cut")
    yield "1. 1.0.0 serves; the link is cut"

    fleet.commit("digits 2.0.0 and 2.1.0", {**version("digits", "2.0.0"), **version("digits", "2.1.0", "2.0.0")})
    fleet.until("it is published", lambda: fleet.seen("milan-01")["published"] > fleet.seen("milan-01")["sequence"])
    yield "2. 2.0.0 and 2.1.0 are pushed and published"

    fleet.expect({"milan-01": "1.0.0"})
    fleet.lose_power("milan-01")
    fleet.expect({"milan-01": ""})
    fleet.start_agent("milan-01")
    fleet.expect({"milan-01": "1.0.0"})
    contact = fleet.host("milan-01").status()["contact"]
    if not contact["why"]:
        raise Wrong(f"the agent does not say that it is cut off: {contact}")
    yield "3. 1.0.0 serves; everything at the site is killed, and it serves again from its disk"

    fleet.until("unknown since", lambda: fleet.seen("milan-01")["unknownSince"])
    seen = fleet.seen("milan-01")
    same("health of a silent site", "unknown", seen["health"])
    same("health of what it runs", ["unknown"], [one["health"] for one in seen["entries"]])
    same("events that the hub has", before, fleet.events("milan-01"))
    yield f"4. The hub shows `unknown since {seen['unknownSince']}`"

    link.set("open")
    fleet.until("2.1.0 runs", lambda: [one["version"] for one in fleet.seen("milan-01")["entries"]] == ["2.1.0"])
    fleet.expect({"milan-01": "2.0.0"})
    until_told(fleet, "milan-01", ["repaired", "switched", "committed"])
    events = fleet.events("milan-01")
    same("numbers of the events", list(range(1, len(events) + 1)), [one["number"] for one in events])
    versions = {one["version"] for one in events if one["kind"] in ("staged", "switched", "committed")}
    same("versions that were ever brought up", {"1.0.0", "2.1.0"}, versions)
    yield f"5. The link is back: straight to 2.1.0; all {len(events)} events arrived once and in order"


def until_told(fleet: Fleet, site: str, kinds: list[str]) -> None:
    """Wait until the hub's newest events of a site have these kinds, in this order, others in between."""

    def told() -> bool:
        found = iter(reversed(fleet.events(site)))
        return all(any(kind == one["kind"] for one in found) for kind in reversed(kinds))

    fleet.until(f"events {', '.join(kinds)}", told, seen=lambda: str([one["kind"] for one in fleet.events(site)]))
