"""Cluster documents in a working tree: written, relabelled and removed as a person would, comments kept.

Pure but for ``find``: text in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from agent.wire.errors import Stop
from gitops import names as syntax

FOLDER: Final = "clusters"
_HEAD: Final = "# yaml-language-server: $schema=../.schemas/cluster.json\n"


class NoSuchDocument(Stop):
    """The working tree has no document of this cluster, or has one already."""

    code = "EF3152"


class DocumentUnclear(Stop):
    """A cluster's document is written in a way that no label can be changed in safely."""

    code = "EF3153"


def check_label(key: str, value: str) -> None:
    """Refuse what is no label.

    Raises:
        ValueError: in words.
    """
    syntax.label_key(key)
    syntax.label_value(value)


def new_document(name: str, labels: Mapping[str, str]) -> str:
    """Return the document of a new cluster."""
    lines = [_HEAD, "apiVersion: edgeferry.dev/v1alpha1\nkind: Cluster\nmetadata:\n", f"  name: {_scalar(name)}\n"]
    if labels:
        lines.append(f"  labels: {_flow(labels)}\n")
    return "".join(lines)


def find(repository: Path, name: str) -> Path | None:
    """Return the file with the document of a cluster; None where there is none. It holds no other document."""
    likely = repository / FOLDER / f"{name}.yaml"
    for path in (likely, *sorted((repository / FOLDER).rglob("*.y*ml"))):
        try:
            text = path.read_text()
            documents = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
        except (OSError, UnicodeError, yaml.YAMLError):
            continue
        found = [one for one in documents if _text(one, "metadata", "name") == name and _text(one, "kind") == "Cluster"]
        if found and len(documents) == 1:
            return path
        if found:
            raise DocumentUnclear(
                f"{len(documents)} documents stand in one file", where=str(path), do="change it by hand, or split it"
            )
    return None


def with_labels(text: str, changes: Mapping[str, str | None], where: str) -> str:
    """Return a document with other labels; everything but the labels stays as it was written.

    Args:
        text: one Cluster document.
        changes: key → new value; None takes the label away.
        where: for the message of a fault.

    Raises:
        DocumentUnclear: metadata or labels are no plain mapping.
    """
    metadata = _value(yaml.compose(text, Loader=yaml.SafeLoader), "metadata")
    if not isinstance(metadata, yaml.MappingNode):
        raise DocumentUnclear("metadata is no mapping", where=where, do="run `edgeferry validate`")
    pairs = {key.value: (key, value) for key, value in metadata.value}
    labels = pairs.get("labels")
    before = {} if labels is None else _plain(labels[1], where)
    after = {key: value for key, value in {**before, **changes}.items() if value is not None}
    if labels is not None:
        start, end = labels[0].start_mark.index, labels[1].end_mark.index
        tail = text[start:end]
        kept = tail[len(tail.rstrip()) :] if not labels[1].flow_style else ""
        return f"{text[:start]}labels: {_flow(after)}{kept}{text[end:]}"
    name = pairs["name"]
    start, end = name[0].start_mark, name[1].end_mark.index
    if metadata.flow_style:
        return f"{text[:end]}, labels: {_flow(after)}{text[end:]}"
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    return f"{text[:line_end]}\n{' ' * start.column}labels: {_flow(after)}{text[line_end:]}"


def _plain(node: yaml.Node, where: str) -> dict[str, str]:
    if not isinstance(node, yaml.MappingNode) or not all(
        isinstance(part, yaml.ScalarNode) for pair in node.value for part in pair
    ):
        raise DocumentUnclear("labels are no plain mapping", where=where, do="run `edgeferry validate`")
    return {key.value: value.value for key, value in node.value}


def _flow(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_scalar(key)}: {_scalar(value)}" for key, value in labels.items()) + "}"


def _scalar(text: str) -> str:
    """Return text as YAML reads it back: in quotes where it would be anything else."""
    try:
        plain = yaml.load(f"[{text}]", Loader=yaml.CSafeLoader) == [text] and bool(text)  # the safe one
    except yaml.YAMLError:
        plain = False
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _text(node: yaml.Node | None, *path: str) -> str:
    for key in path:
        node = _value(node, key)
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
