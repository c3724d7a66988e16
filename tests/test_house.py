"""The house's own laws: codes and docs in step, README true, dependencies used, no machine's names in the tree."""

from __future__ import annotations

import ast
import configparser
import glob
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.errors import EdgeferryError, Retry, Stop, Wait

ROOT = Path(__file__).parents[1]
PACKAGES = ("gitops", "placement", "agent")
IMPORT_NAMES = {"PyYAML": "yaml", "GitPython": "git"}
UNCODED = {EdgeferryError, Retry, Wait, Stop}


def modules() -> Iterator[str]:
    for package in PACKAGES:
        module = importlib.import_module(package)
        for one in pkgutil.walk_packages(module.__path__, f"{package}."):
            if "digits" not in one.name and "template" not in one.name:
                yield one.name


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def faults() -> dict[str, set[str]]:
    """Return code → names, of every concrete error class and of every fault value in the sources."""
    for name in modules():
        importlib.import_module(name)
    found: dict[str, set[str]] = {}
    todo = [EdgeferryError]
    while todo:
        one = todo.pop()
        todo += one.__subclasses__()
        if one not in UNCODED and one.code != "EF0000" and one.__module__.split(".")[0] in PACKAGES:
            found.setdefault(one.code, set()).add(one.__name__)
    return found


def codes_in_sources() -> set[str]:
    text = "".join(path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return set(re.findall(r"\bEF\d{4}\b", text)) - {"EF0000"}


def sections() -> dict[str, str]:
    return dict(re.findall(r"^## (EF\d{4}) (\w+)$", (ROOT / "docs" / "errors.md").read_text(), re.M))


def test_a_code_means_one_fault() -> None:
    shared = {code: names for code, names in faults().items() if len(names) > 1}
    assert not shared


def test_every_code_has_its_section_and_every_section_its_code() -> None:
    assert set(sections()) == codes_in_sources()


def test_a_section_bears_the_name_of_its_fault() -> None:
    wrong = {code: names for code, names in faults().items() if sections().get(code) not in names}
    assert not wrong


def test_declared_dependencies_are_imported_by_shipped_code() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    declared = config["options"]["install_requires"].split("\n")
    for extra in ("hub", "agent", "demo"):
        declared += config["options.extras_require"][extra].split("\n")
    names = {re.split(r"[<>=!~\[ ]", line)[0] for line in declared if line}
    shipped = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    shipped += [ROOT / "examples" / "runtime" / "edgeferry-onnx-runtime"]
    imported: set[str] = set()
    for path in shipped:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    unused = {name for name in names if IMPORT_NAMES.get(name, name.replace("-", "_")) not in imported}
    assert unused <= {"httptools"}, "uvicorn takes httptools when it is there"


def test_every_file_of_the_template_is_shipped() -> None:
    """A glob leaves out names that begin with a dot, unless the pattern has it."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [one.strip() for one in config["options.package_data"]["gitops"].split(",")]
    shipped = {path for one in patterns for path in glob.glob(one, root_dir=ROOT / "gitops", recursive=True)}  # noqa: PTH207  # as setuptools does
    template = ROOT / "repo-template"
    files = {f"template/{path.relative_to(template)}" for path in template.rglob("*") if path.is_file()}
    assert files <= shipped


@pytest.mark.parametrize("command", ["edgeferry", "edgeferry-agent"])
def test_the_readme_quotes_the_help(command: str) -> None:
    shown = subprocess.run(
        [str(Path(sys.executable).parent / command), "--help"], capture_output=True, text=True, check=True
    )
    commands = re.findall(r"^  ([a-z-]+)  +\S", shown.stdout.split("Commands:")[1], re.M)
    readme = (ROOT / "README.md").read_text()
    assert shown.stdout.strip() in readme, f"README.md must quote `{command} --help`: {commands}"


def test_the_readmes_commands_are_targets_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    used = set(re.findall(r"^make ([a-z-]+)", readme, re.M))
    assert used and used <= targets


def test_the_lock_names_no_registry() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or "index" in line.split("==")[0]]


def test_gitops_takes_of_the_agent_only_formats_registry_client_and_deltas() -> None:
    allowed = ("agent.wire", "agent.oci", "agent.delta")
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "gitops").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] == "agent" and not name.startswith(allowed)
    ]
    assert not wrong


def test_the_formats_stand_on_nothing() -> None:
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "agent" / "wire").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in PACKAGES and not name.startswith("agent.wire")
    ]
    assert not wrong


def test_the_agent_takes_of_placement_only_how_versions_compare_and_what_facts_mean() -> None:
    allowed = ("versions", "facts", "fact_names")
    wrong = [
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "agent").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] == "placement" and name.removeprefix("placement.") not in allowed
    ]
    assert not wrong


def test_no_module_has_outgrown_one_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
