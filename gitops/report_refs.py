"""Reports out of a report repository: of a fleet without a hub, whose agents push to a branch each.

Everything there is hostile: anybody with the right to push may have written it. What counts is signed with the key that
the cluster's document names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pygit2

from agent.wire.errors import EdgeferryError, Retry, Stop
from agent.wire.report import REPORT_NAME, REPORT_SIGNATURE_NAME, Report, decode_report, report_branch
from agent.wire.signature import REPORT, verify
from gitops.git_cli import GitFailed, check_url, redacted, run_git

_MOST_BYTES: Final = 1 << 20
_MOST_SIGNATURE_BYTES: Final = 16 << 10
_TIMEOUT_S: Final = 120.0


class ForeignReport(Stop):
    """A branch of the report repository holds what is no report of that cluster, by its key."""

    code = "EF3023"


class ReportsUnreadable(Retry):
    """The report repository cannot be read."""

    code = "EF3024"
    delay_s = 15.0


@dataclass(frozen=True, slots=True)
class Letter:
    """What stands on one branch, not trusted yet; no bytes where it is no report at all."""

    cluster: str
    data: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """What the clusters said.

    Attributes:
        reports: cluster → its newest report, verified.
        refused: what was not taken, one fault each.
    """

    reports: Mapping[str, Report]
    refused: tuple[ForeignReport, ...]

    @property
    def highest(self) -> dict[str, int]:
        """Cluster → highest sequence that it reported."""
        return {name: report.sequence for name, report in self.reports.items()}


def fetch_reports(url: str, work: Path) -> list[Letter]:
    """Return what stands in a report repository, by cluster.

    Args:
        url: anything ``git fetch`` takes.
        work: directory for a copy; made.

    Raises:
        ReportsUnreadable: it cannot be read.
    """
    try:
        pygit2.init_repository(str(work), bare=True)
        prefix = report_branch("")
        options = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--quiet")
        run_git(work, "fetch", *options, "--", check_url(url), f"+{prefix}*:{prefix}*", timeout_s=_TIMEOUT_S)
    except (GitFailed, ValueError, pygit2.GitError) as error:
        do = "check the URL and the credentials; publish without --reports to go on without them"
        raise ReportsUnreadable(str(error)[-300:], where=redacted(url), do=do) from None
    repository = pygit2.Repository(str(work))
    return list(_letters(repository, prefix))


def hear(letters: Iterable[Letter], keys: Mapping[str, str], fleet: str) -> Heard:
    """Return the reports that are what they say.

    Args:
        letters: as they were found.
        keys: cluster → public key of its agent.
        fleet: id of the fleet.
    """
    reports: dict[str, Report] = {}
    refused = []
    for letter in letters:
        where = report_branch(letter.cluster)
        key = keys.get(letter.cluster)
        try:
            if not letter.data:
                raise ForeignReport(f"no {REPORT_NAME} with its signature", where=where, do="delete the branch")
            if key is None:
                do = "write `spec.key` into the cluster's document, or delete the branch"
                raise ForeignReport("no cluster with a key bears that name", where=where, do=do)
            verify(letter.data, letter.signature, REPORT, (key,), where)
            report = decode_report(letter.data, where)
            if (report.cluster, report.fleet) != (letter.cluster, fleet):
                what = f"a report of {report.cluster[:80]!r} in fleet {report.fleet[:80]!r}"
                raise ForeignReport(what, where=where, do="look who pushed it, and delete the branch")
        except ForeignReport as error:
            refused.append(error)
        except EdgeferryError as error:
            do = "look who pushed it; does `spec.key` of the cluster name its agent's key?"
            refused.append(ForeignReport(f"{error.code} {error.what}", where=where, do=do))
        else:
            reports[letter.cluster] = report
    return Heard(reports, tuple(refused))


def _letters(repository: pygit2.Repository, prefix: str) -> Iterator[Letter]:
    for name in sorted(repository.references):
        if not name.startswith(prefix):
            continue
        cluster = name.removeprefix(prefix)
        try:
            tree = repository.references[name].peel(pygit2.Tree)
            data = _read(repository, tree, REPORT_NAME, _MOST_BYTES)
            yield Letter(cluster, data, _read(repository, tree, REPORT_SIGNATURE_NAME, _MOST_SIGNATURE_BYTES))
        except (KeyError, ValueError, pygit2.GitError):
            yield Letter(cluster, b"", b"")


def _read(repository: pygit2.Repository, tree: pygit2.Tree, name: str, most_bytes: int) -> bytes:
    oid = tree[name].id
    _, size = repository.odb.read_header(oid)
    if size > most_bytes:
        raise ValueError(f"{name} has {size} bytes")
    return bytes(repository.odb.read(oid)[1])
