"""Version folders → versions: what a version's bytes are, and its identity. No model byte is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.wire.canonical import Json, canonical, digest
from agent.wire.model_signature import MOST_BYTES
from agent.wire.model_signature import NAME as SIGNATURE
from gitops import charts, faults, kinds, manifests
from gitops.catalog_types import CatalogVersion, Content, WorkloadVersion
from gitops.documents import Located, position
from gitops.faults import Fault
from gitops.names import version_number
from gitops.tree import File, Tree
from gitops.yaml_text import MAX_BYTES, Place

SELF_TEST_BYTES: Final = 256 << 10
"""A self-test's question or answer may have this many: both travel in every overlay."""

_POINTER: Final = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder ``OWNER/versions/VERSION/``.

    Attributes:
        owner: directory around ``versions/``; ends with a slash, or is empty.
        version: name of the folder.
        files: path within the folder → file, without version.yaml.
    """

    owner: str
    version: str
    files: Mapping[str, File]

    @property
    def path(self) -> str:
        """Path of the folder, with a slash at its end."""
        return f"{self.owner}versions/{self.version}/"


def misnamed(folder: Folder, source: str) -> list[Fault]:
    """Return the fault of a folder whose name is no version, if it is none."""
    try:
        version_number(folder.version)
    except ValueError as error:
        what, _, do = str(error).partition(": ")
        return [faults.WRONG_FOLDER.at(folder.path, what, do or "rename the folder", source=source)]
    return []


def model_version(tree: Tree, folder: Folder, located: Located | None) -> tuple[CatalogVersion | None, list[Fault]]:
    """Return a model version that has a folder, and its faults.

    Args:
        tree: that it stands in.
        folder: its name is a version.
        located: the ModelVersion in its version.yaml; None where the folder holds just the model's files.
    """
    unsigned = {name: file for name, file in folder.files.items() if name != SIGNATURE}
    signature = tree.blobs.read(folder.files[SIGNATURE], MOST_BYTES) if SIGNATURE in folder.files else b""
    if located is None:
        return _undocumented(tree, replace(folder, files=unsigned), signature)
    document = located.document
    assert isinstance(document, kinds.ModelVersion)
    spec = document.spec
    wanted: list[tuple[str, Place, kinds.ArtifactSpec]] = [
        (name, place, artifact)
        for name, place, artifact in (
            ("", ("spec", "artifact"), spec.artifact),
            *((one.name, ("spec", "variants", n, "artifact"), one.artifact) for n, one in enumerate(spec.variants)),
        )
        if artifact is not None and artifact.path is not None
    ]
    chart, missing = _chart_of(tree, folder, located, spec)
    if not wanted and not missing and chart is None:
        return replace(registered_version(located), signature=signature), []
    contents: dict[str, Content] = {}
    for name, place, artifact in wanted:
        path = (artifact.path or "").removeprefix("./").rstrip("/")
        contents[name] = _below(tree.source, folder.path, unsigned, path)
        if not contents[name].files:
            do = "add it to the version's folder, or mend the path"
            what = f"there is no {folder.path}{path}"
            missing.append(at(tree, located, (*place, "path"), faults.MISSING_FILE, what, do))
    if missing:
        return None, missing
    own = contents.pop("") if "" in contents else None
    identity = _identity(spec, own, contents, chart)
    made = CatalogVersion(folder.version, identity, own, spec, where=located.where, signature=signature)
    return replace(made, contents=contents, chart=chart), []


def _undocumented(tree: Tree, folder: Folder, signature: bytes) -> tuple[CatalogVersion | None, list[Fault]]:
    """Return the version of a folder that holds just files: a chart, a model, or a model beside its chart."""
    spec = kinds.ModelVersionSpec()
    place = charts.place_of(folder.files)
    chart, wrong = (None, []) if place is None else _chart(tree, folder, place)
    rest = {name: file for name, file in folder.files.items() if place is None or not _within(name, place)}
    content = _content(tree.source, folder.path, rest) if rest or place is None else None
    if wrong:
        return None, wrong
    identity = _identity(spec, content, chart=chart)
    made = CatalogVersion(folder.version, identity, content, spec, where=folder.path, signature=signature)
    return replace(made, chart=chart), []


def _chart_of(
    tree: Tree, folder: Folder, located: Located, spec: kinds.ModelVersionSpec
) -> tuple[Content | None, list[Fault]]:
    """Return the chart that ``chart.path`` names, and what is wrong with it."""
    if spec.chart is None or spec.chart.path is None:
        return None, []
    place = "" if spec.chart.path in (".", "./") else spec.chart.path.removeprefix("./").rstrip("/")
    if "Chart.yaml" in charts.below(folder.files, place):
        return _chart(tree, folder, place)
    path = "/".join(filter(None, (folder.path.rstrip("/"), place, "Chart.yaml")))
    do = "add it to the version's folder, or mend the path"
    return None, [at(tree, located, ("spec", "chart", "path"), faults.MISSING_FILE, f"there is no {path}", do)]


def _chart(tree: Tree, folder: Folder, place: str) -> tuple[Content, list[Fault]]:
    files = charts.below(folder.files, place)
    root = f"{folder.path}{place}/" if place else folder.path
    return _content(tree.source, root, files), charts.check(tree, files)


def _within(path: str, folder: str) -> bool:
    return folder == "" or path.startswith(f"{folder}/")


def _below(source: str, folder: str, files: Mapping[str, File], path: str) -> Content:
    """Return the file or folder at a path within a version's folder; no files where there is neither."""
    if path in (".", ""):
        return _content(source, folder, files)
    if path in files:
        file = files[path]
        root, _, name = file.path.rpartition("/")
        return _content(source, root + "/", {name: file})
    below = {name.removeprefix(path + "/"): file for name, file in files.items() if name.startswith(path + "/")}
    return _content(source, f"{folder}{path}/", below)


def registered_version(located: Located) -> CatalogVersion:
    """Return a model version whose bytes are in a registry."""
    document = located.document
    assert isinstance(document, kinds.ModelVersion)
    identity = _identity(document.spec, None)
    return CatalogVersion(document.metadata.version, identity, None, document.spec, where=located.where)


def workload_version(
    tree: Tree, folder: Folder, document: kinds.Workload
) -> tuple[WorkloadVersion | None, list[Fault]]:
    """Return a workload version, and its faults."""
    place = charts.place_of(folder.files)
    if place is not None:
        return _workload_chart(tree, folder, document, place)
    on_host = document.spec.host is not None
    read = {
        name: tree.blobs.read(file, MAX_BYTES + 1)
        for name, file in folder.files.items()
        if name.endswith(manifests.SUFFIXES)
    }
    objects = {name: data for name, data in sorted(read.items()) if manifests.is_manifest(name, data)}
    if not objects and not on_host:
        what = "no Kubernetes manifests and no chart here, and the workload has no `host`"
        do = "add manifests, or a chart, or `host` to it"
        return None, [faults.NOTHING_TO_DELIVER.at(folder.path, what, do, source=tree.source)]
    wrong = manifests.check(objects, folder.path, tree.source, document.spec.namespace)
    content = _content(tree.source, folder.path, folder.files)
    version = WorkloadVersion(
        version=folder.version,
        identity=digest(canonical({"files": _listed(content)})),
        manifests=objects,
        content=content if on_host else None,
        where=folder.path,
    )
    return version, wrong


def _workload_chart(
    tree: Tree, folder: Folder, document: kinds.Workload, place: str
) -> tuple[WorkloadVersion | None, list[Fault]]:
    chart, wrong = _chart(tree, folder, place)
    if document.spec.host is not None:
        what, do = "a chart runs on no bare host", "take out `host`, or make another workload of it"
        wrong.append(faults.CONTRADICTION.at(folder.path, what, do, source=tree.source))
    if wrong:
        return None, wrong
    identity = digest(canonical({"chart": _listed(chart)}))
    return WorkloadVersion(folder.version, identity, {}, where=folder.path, chart=chart), []


def sourced_version(located: Located, source: kinds.WorkloadSource) -> WorkloadVersion:
    """Return a workload version whose chart is in a registry."""
    identity = digest(canonical({"source": source.model_dump(mode="json", by_alias=True)}))
    return WorkloadVersion(source.version, identity, {}, where=located.where, chart=source)


def self_test(
    tree: Tree, located: Located, question: File | None, answer: File | None
) -> tuple[dict[str, bytes], list[Fault]]:
    """Return the files of a model's self-test by their paths as the model gives them, and their faults.

    Args:
        tree: that it stands in.
        located: a Model with a self-test.
        question: file of ``input``; None where there is none.
        answer: file of ``output``; None where there is none.
    """
    document = located.document
    assert isinstance(document, kinds.Model) and document.spec.self_test is not None
    test = document.spec.self_test
    files: dict[str, bytes] = {}
    found: list[Fault] = []
    for field, name, file in (("input", test.input, question), ("output", test.output, answer)):
        if file is None:
            what, do = f"there is no file {name} beside it", "add the file, or mend the path"
            found.append(at(tree, located, ("spec", "selfTest", field), faults.MISSING_FILE, what, do))
            continue
        files[name] = tree.blobs.read(file, SELF_TEST_BYTES + 1)
        wrong = _json_fault(files[name])
        if wrong is not None:
            found.append(faults.BAD_SELF_TEST.at(file.path, *wrong, source=tree.source))
    return files, found


def at(
    tree: Tree, located: Located, place: Place, code: faults.Code, what: str, do: str, *, key: bool = False
) -> Fault:
    """Return a fault of a document that is faultless by itself, with the position of one of its fields."""
    data = tree.blobs.read(located.file, MAX_BYTES + 1)
    line, column = position(data, located.number, place, key=key)
    return code.at(located.file.path, what, do, line=line, column=column, source=tree.source)


def _json_fault(data: bytes) -> tuple[str, str] | None:
    if len(data) > SELF_TEST_BYTES:
        return f"larger than {SELF_TEST_BYTES >> 10} KiB", "ask a smaller question: it travels in every overlay"
    if data.startswith(_POINTER):
        return "a Git LFS pointer", "keep self-tests in Git itself: `git lfs untrack` and add it again"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {str(error)[:120]}", "mend it"
    return None if isinstance(value, dict) else ("no JSON object", "write the body of an inference request or answer")


def _content(source: str, root: str, files: Mapping[str, File]) -> Content:
    return Content(source, root.rstrip("/"), tuple(file for _, file in sorted(files.items())))


def _identity(
    spec: kinds.ModelVersionSpec,
    content: Content | None,
    contents: Mapping[str, Content] | None = None,
    chart: Content | None = None,
) -> str:
    """Return the digest over what a version is, wherever it stands."""
    value = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if content is not None:
        value.pop("artifact", None)
    covered: dict[str, Json] = {"spec": value, "files": _listed(content)}
    if chart is not None:
        value.pop("chart", None)
        covered["chart"] = _listed(chart)
    if contents:
        covered["variants"] = {name: _listed(one) for name, one in contents.items()}
    return digest(canonical(covered))


def _listed(content: Content | None) -> list[Json]:
    if content is None:
        return []
    start = len(content.root) + 1 if content.root else 0
    return [[file.path[start:], file.oid] for file in content.files]
