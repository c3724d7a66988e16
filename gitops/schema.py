"""Typed definitions → JSON Schemas (gitops/schemas/) and reference pages (docs/kinds/): ``python -m gitops.schema``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gitops import yaml_text
from gitops.kinds import KINDS, Document
from gitops.validation import definitions

Json = Any

_ROOT: Final = Path(__file__).parents[1]
SCHEMAS: Final = Path(__file__).parent / "schemas"
PAGES: Final = _ROOT / "docs" / "kinds"

_WHERE: Final = {
    "Fleet": "fleet.yaml",
    "Source": "sources/NAME.yaml",
    "Model": "models/NAME/model.yaml",
    "ModelVersion": "models/NAME/versions/VERSION/version.yaml",
    "Cluster": "clusters/NAME.yaml",
    "Placement": "placements/NAME.yaml",
    "Workload": "workloads/NAME/workload.yaml",
    "Runtime": "runtimes/NAME.yaml",
}


def schema(kind: type[Document], example: Json) -> dict[str, Json]:
    """Return the JSON Schema (2020-12) of a kind."""
    made = kind.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": kind.kind_name,
        "examples": [example],
    }


def page(kind: type[Document], example: str) -> str:
    """Return the reference page of a kind: its example, every field, and what later versions will have."""
    made = kind.model_json_schema(by_alias=True)
    rows = list(_rows(made, made, ""))
    lines = [
        f"# {kind.kind_name}",
        "",
        _words(made),
        "",
        f"Usually in `{_WHERE[kind.kind_name]}`; it may stand in any YAML file outside `versions/`."
        if kind.kind_name != "ModelVersion"
        else f"In `{_WHERE['ModelVersion']}`; with a `ref` or an image it may stand in any YAML file.",
        "",
        "```yaml",
        example.rstrip(),
        "```",
        "",
        "| field | type | default | meaning |",
        "|---|---|---|---|",
        *(f"| `{name}` | {form} | {default} | {meaning} |" for name, form, default, meaning in rows),
    ]
    later = list(_later(kind))
    if later:
        words = ", ".join(f"`{name}`" for name in later)
        lines += ["", f"Refused in this version, as nothing acts on them yet: {words}."]
    lines += ["", f"JSON Schema: `gitops/schemas/{kind.kind_name.lower()}.json`."]
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Return every generated file with its content."""
    made: dict[Path, str] = {}
    for name, kind in KINDS.items():
        example = (PAGES / f"{name.lower()}.example.yaml").read_text()
        value = yaml_text.read(example.encode(), f"{name.lower()}.example.yaml", "main")[0][0].value
        made[SCHEMAS / f"{name.lower()}.json"] = json.dumps(schema(kind, value), indent=2, ensure_ascii=False) + "\n"
        made[PAGES / f"{name.lower()}.md"] = page(kind, example)
    made[PAGES / "README.md"] = _contents()
    return made


def _contents() -> str:
    """Return the page that lists the kinds and says how documents are read."""
    rows = [
        f"| [{name}]({name.lower()}.md) | `{_WHERE[name]}` | {_cell(kind.__doc__ or '')} |"
        for name, kind in KINDS.items()
    ]
    limits = (
        f"{yaml_text.MAX_BYTES >> 20} MiB, {yaml_text.MAX_DOCUMENTS:,} documents, {yaml_text.MAX_VALUES:,} values "
        f"(an alias counts as what it stands for) and {yaml_text.MAX_DEPTH} levels"
    )
    return "\n".join(
        [
            "# Kinds of documents",
            "",
            "| kind | usually in | what |",
            "|---|---|---|",
            *rows,
            "",
            "Documents are YAML by the core rules of YAML 1.2: `no` and `on` are text, `1e-4` is a number, a date is",
            "text. Versions, labels and values are text: quote what looks like a number. Unknown fields, duplicate",
            f"keys, tags, and fields without a value are faults. A file has at most {limits}.",
            "",
            "Everything below `versions/VERSION/` belongs to that version, and is never read as documents but for",
            "version.yaml. Folders that begin with a dot are not looked at.",
            "",
        ]
    )


def _rows(whole: Json, part: Json, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    required = part.get("required", [])
    for name, one in part.get("properties", {}).items():
        place = f"{prefix}{name}"
        inner = _inner(whole, one)
        default = "needed" if name in required else _default(one)
        meaning = one.get("description") or _words(inner)
        yield place, _type(whole, one), default, _cell(meaning)
        if "properties" in inner:
            yield from _rows(whole, inner, place + ("[]." if _is_list(one) else "."))


def _inner(whole: Json, one: Json) -> Json:
    """Return the definition behind references, lists and what may be left out."""
    if "$ref" in one:
        return whole["$defs"][one["$ref"].rpartition("/")[2]]
    if "items" in one:
        return _inner(whole, one["items"])
    if "anyOf" in one:
        return _inner(whole, next(part for part in one["anyOf"] if part.get("type") != "null"))
    return one


def _is_list(one: Json) -> bool:
    return "items" in one or any("items" in part for part in one.get("anyOf", ()))


def _type(whole: Json, one: Json) -> str:
    if "anyOf" in one:
        return _type(whole, next(part for part in one["anyOf"] if part.get("type") != "null"))
    if "$ref" in one or "properties" in one:
        return "mapping"
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return " or ".join(f"`{value}`" for value in one["enum"])
    if "items" in one:
        return f"list of {_type(whole, one['items'])}"
    if one.get("type") == "object":
        values = one.get("additionalProperties") or next(iter(one.get("patternProperties", {}).values()), None)
        return f"mapping to {_type(whole, values)}" if isinstance(values, Mapping) else "mapping"
    bounds = [f"{words} {one[key]}" for key, words in (("minimum", "from"), ("maximum", "to")) if key in one]
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "number": "number"}
    return " ".join([one.get("format") or words.get(one.get("type"), "anything"), *bounds])


def _default(one: Json) -> str:
    value = one.get("default")
    if value is None or value in ([], {}, ""):
        return "–"
    if isinstance(value, dict):
        return "–" if not any(value.values()) else f"`{json.dumps(value)}`"
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _words(part: Json) -> str:
    return str(part.get("description", "")).replace("\n", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _later(kind: type[Document]) -> Iterator[str]:
    for place, definition in definitions(kind):
        yield from (f"{place}{name}" for name in definition.later)


def main() -> None:
    """Write every generated file."""
    SCHEMAS.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
