"""docs/deliveries.md: the documents on it are a faultless repository."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from gitops.review import review

ROOT = Path(__file__).parents[2]


def test_the_documents_on_the_page_are_faultless(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", (ROOT / "docs" / "deliveries.md").read_text(), re.S)
    assert len(blocks) == 8
    for path, text in blocks:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for model in ("defects", "labels"):
        folder = tmp_path / "models" / model / "versions" / "1.0.0"
        folder.mkdir(parents=True)
        (folder / f"{model}.onnx").write_bytes(b"weights")
    chart = tmp_path / "models" / "reader" / "versions" / "1.0.0" / "chart"
    shutil.copytree(ROOT / "charts" / "model", chart)
    found = review(tmp_path, None, False, datetime(2026, 1, 1, tzinfo=UTC))
    assert not found.faults
    assert (found.counts["models"], found.counts["versions"]) == (4, 6)
