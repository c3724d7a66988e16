"""The conformance suite of the OCI distribution specification, built once and kept outside the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

MODULE: Final = "github.com/opencontainers/distribution-spec/conformance"
VERSION: Final = "v0.0.0-20260831232431-97274622c111"


def program() -> Path:
    """Return the built suite; without Go the test is skipped with the reason, and fails where CI=true."""
    if shutil.which("go") is None:
        missing("Go, to build the conformance suite of the distribution specification")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "edgeferry" / f"oci-conformance-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "conformance").exists():
            settings = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
            made = subprocess.run(
                ["go", "install", f"{MODULE}@{VERSION}"], env=settings, capture_output=True, text=True, check=False
            )
            if made.returncode:
                missing(f"the conformance suite, which does not build: {made.stderr[-300:]}")
    return folder / "conformance"


def missing(what: str) -> None:
    """Skip the test, loudly; fail it where CI=true."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"this test needs {what}")
    pytest.skip(f"NOT CHECKED: it needs {what}")
