"""Taking 10,000 reports a minute: how much of one core it costs to check, read and keep them.

Every report is signed, of another cluster, and says something new. The reference is to check the signatures alone.

    python -m bench.reports [--reports N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.wire.report import EntryReport, Event, Report, decode_report, encode_report
from agent.wire.signature import REPORT, SigningKey, verify
from bench.figure import figure
from gitops.store import JoinToken
from gitops.store.opening import open_store


def main() -> None:
    """Print fold-reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reports", type=int, default=10_000)
    count = parser.parse_args().reports
    key, now = SigningKey.generate(), datetime.now(UTC)
    letters = [_letter(key, n, now) for n in range(count)]
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(Path(directory, "hub.sqlite"))
        for n in range(count):
            token = b"%d" % n
            store.add_token(JoinToken(token, f"c{n:05}", now + timedelta(hours=1)), "bench", now)
            store.join(token, f"c{n:05}", key.public, (), now)

        def fold() -> None:
            for n, (data, mark) in enumerate(letters):
                verify(data, mark, REPORT, (key.public,), "report")
                store.put_report(f"c{n:05}", decode_report(data, "report"), data, now)

        taken_s = _cpu_s(fold)
        store.close()
    checked_s = _cpu_s(lambda: [verify(data, mark, REPORT, (key.public,), "report") for data, mark in letters])
    share = 100 / 60 * 10_000 / count
    figure("fold-reports", taken_s * share, "% of a core", 15, {"signatures alone": checked_s * share})


def _letter(key: SigningKey, n: int, now: datetime) -> tuple[bytes, bytes]:
    digest = "sha256:" + "a" * 64
    entries = tuple(EntryReport("model", f"m{one}", "1.0.0", digest, digest, "current") for one in range(5))
    events = (Event(1, now, "switched", "model/m0", "1.0.0", "", "was switched", 1),)
    data = encode_report(Report("fleet", f"c{n:05}", "i1", 1, now, sequence=1, entries=entries, events=events))
    return data, key.sign(data, REPORT)


def _cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
