"""Pure modules stay pure: they read no file, no clock, no environment, and throw no dice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = (
    "placement/*.py",
    "agent/plan.py",
    "agent/wire/*.py",
    "gitops/render/*.py",
    "gitops/hub_step.py",
    "gitops/deciding.py",
    "gitops/policies.py",
)
"""Globs of the modules that take values and return values; so does every module that calls itself pure."""
PACKAGES = ("placement", "agent", "gitops")
IMPURE = {
    "asyncio", "fcntl", "git", "glob", "http", "kubernetes", "logging", "mmap", "multiprocessing", "os",
    "pygit2", "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "starlette",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid", "uvicorn", "watchdog",
}  # fmt: skip
CALLS = {"open", "input", "print", "exec", "eval", "__import__", "breakpoint"}
FILES = {"io.open", "io.FileIO", "io.open_code"}
PATH_METHODS = {
    "exists", "is_dir", "is_file", "iterdir", "lstat", "mkdir", "read_bytes", "read_text", "rglob", "rmdir", "stat",
    "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
"""What makes a path more than a name."""
CLOCK = {"now", "utcnow", "today"}


def pure_modules() -> list[Path]:
    """Return the modules named above, and those whose docstring says so."""
    named = {path for pattern in PURE for path in ROOT.glob(pattern)}
    every = [path for package in PACKAGES for path in ROOT.glob(f"{package}/**/*.py") if "template" not in path.parts]
    return sorted(named | {path for path in every if " Pure" in (ast.get_docstring(ast.parse(path.read_text())) or "")})


def impurities(source: str) -> Iterator[str]:
    """Yield what a module imports or calls that reaches out of it."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (f"line {node.lineno}: imports {name}" for name in names if {name, name.split(".")[0]} & IMPURE)
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS:
                yield f"line {node.lineno}: calls {called.id}"
            if isinstance(called, ast.Attribute) and (
                called.attr in CLOCK | PATH_METHODS or ast.unparse(called) in FILES
            ):
                yield f"line {node.lineno}: calls {ast.unparse(called)}"


@pytest.mark.parametrize("path", pure_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_pure_module_reaches_for_nothing(path: Path) -> None:
    assert list(impurities(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os", "import os.path", "from urllib.request import urlopen", "from time import monotonic",
        "def f(): import random", "open('x')", "io.open('x')", "Path('x').read_text()", "datetime.now(UTC)",
        "datetime.datetime.utcnow()", "date.today()",
    ],
)  # fmt: skip
def test_what_reaches_out_is_seen(source: str) -> None:
    assert list(impurities(source))


def test_placement_imports_nothing_of_ours_but_itself() -> None:
    for path in ROOT.glob("placement/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in ("gitops", "agent"), path
