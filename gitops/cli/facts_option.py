"""``--facts FILE|HUB`` for every command that decides without a hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gitops.hub_client import HubClient, NoOperatorToken
from gitops.snapshot import NO_FACTS, Snapshot, decode_snapshot, read_snapshot

F = TypeVar("F", bound=Callable[..., Any])


def facts_option(command: F) -> F:
    """Add ``--facts`` to a command; it arrives as ``facts``, as it was written."""
    option = click.option(
        "--facts",
        metavar="FILE|HUB",
        help="Facts of the clusters: a file by `edgeferry facts export`, or the URL of a hub"
        " (with EDGEFERRY_OPERATOR_TOKEN).  [default: none are known]",
    )
    return option(command)


def snapshot_of(facts: str | None) -> Snapshot:
    """Return what ``--facts`` names; no facts where it was not given.

    Raises:
        EdgeferryError: the file, or the hub, cannot be read.
    """
    if facts is None:
        return NO_FACTS
    if not facts.startswith(("http://", "https://")):
        return read_snapshot(Path(facts))
    token = os.environ.get("EDGEFERRY_OPERATOR_TOKEN", "")
    if not token:
        do = "set EDGEFERRY_OPERATOR_TOKEN to what stands in the hub's operator.token"
        raise NoOperatorToken("no operator token", where=facts, do=do)
    ca = os.environ.get("EDGEFERRY_HUB_CA", "")
    return decode_snapshot(HubClient(facts, token, Path(ca) if ca else None).get("/v1/facts"), facts)
