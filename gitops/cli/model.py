"""``edgeferry model``: push, sign, verify, inspect and list model versions."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from agent.oci_push import open_registry
from agent.wire.model_signature import (
    NAME,
    check_files,
    read_model_key,
    read_signing_key,
    verify_model,
)
from gitops.cli.output import as_json, output_option, table
from gitops.delta_encode import mapped
from gitops.model_facts import ModelFacts, read_facts
from gitops.model_push import Packed, logins, packed, push, split_reference, version_document
from gitops.model_registry import list_versions

_MODEL = click.argument("model", type=click.Path(exists=True, path_type=Path))
_KEY = click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key that signs: ed25519 or P-256.",
)


@click.group()
def model() -> None:
    """Push model versions, sign them, and look at them."""


@model.command(name="push")
@_MODEL
@click.option("--name", required=True, help="Name of the model.")
@click.option("--version", required=True, help="Semantic version.")
@click.option("--to", required=True, metavar="REF", help="oci://HOST/REPOSITORY, on the hub or on any registry.")
@click.option("--hub", is_flag=True, help="REF is the hub's own store: sites get it as hub://REPOSITORY.")
@_KEY
@click.option(
    "--repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Model repository that gets the version document.",
)
@output_option
def push_model(
    model: Path, name: str, version: str, to: str, hub: bool, key: Path | None, repository: Path, output: str
) -> None:
    """Push MODEL, a file or a folder, as one version, and write its version document.

    What the registry has already is not sent again, and a cut upload goes on where it was. The login is EDGEFERRY_TOKEN
    (the hub's operator token), or what docker, podman or skopeo keep.

    \b
    Examples:
      edgeferry model push model.onnx --name reader --version 2.1.0 --to oci://hub.example:8460/models/reader --hub
      edgeferry model push saved/ --name reader --version 2.1.0 --to oci://reg.example/models/reader --key model.key
    """
    made = packed(model, name, version)
    signature = None if key is None else made.signed(name, read_signing_key(key.read_bytes(), str(key)))
    host, place = split_reference(to)
    registry = open_registry(host, logins(os.environ), "pull,push")
    try:
        sent = push(registry, place, made, version, _progress(output))
    finally:
        registry.close()
    folder = repository / "models" / name / "versions" / version
    folder.mkdir(parents=True, exist_ok=True)
    ref = f"hub://{place}" if hub else f"oci://{host}/{place}"
    (folder / "version.yaml").write_text(version_document(name, version, ref, made))
    if signature is not None:
        (folder / NAME).write_bytes(signature)
    found = {
        "digest": made.digest,
        "sizeBytes": made.size_bytes,
        "sentBytes": sent,
        "ref": ref,
        "document": str(folder),
    }
    said = f"{ref}@{made.digest}\n{sent} of {made.size_bytes} bytes sent; commit {folder}"
    click.echo(as_json(found) if output == "json" else said)


@model.command()
@_MODEL
@_KEY
@click.option("--name", default="", help="Name of the model, for people.  [default: of the file or folder]")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to.  [default: model.sig beside the files]"
)
def sign(model: Path, key: Path | None, name: str, out: Path | None) -> None:
    """Sign MODEL, a file or a version's folder, as an OpenSSF model signature.

    \b
    Examples:
      edgeferry model sign models/reader/versions/2.1.0 --key model.key
      edgeferry model sign model.onnx --key model.key --out models/reader/versions/2.1.0/model.sig
    """
    if key is None:
        raise click.UsageError("--key is missing: make one with ssh-keygen -t ecdsa -b 256 -m PEM -N '' -f model.key")
    made = packed(model, "model", "0.0.0")
    target = out or (model / NAME if model.is_dir() else model.with_name(NAME))
    target.write_bytes(made.signed(name or model.name, read_signing_key(key.read_bytes(), str(key))))
    click.echo(str(target))


@model.command()
@_MODEL
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public key that may sign; more than once for several.",
)
@click.option(
    "--signature", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="[default: model.sig beside it]"
)
@output_option
def verify(model: Path, keys: tuple[Path, ...], signature: Path | None, output: str) -> None:
    """Verify that MODEL, a file or a version's folder, is what one of the keys signed.

    \b
    Example:
      edgeferry model verify models/reader/versions/2.1.0 --key model.key.pub
    """
    place = signature or (model / NAME if model.is_dir() else model.with_name(NAME))
    data = place.read_bytes() if place.exists() else b""
    signed = verify_model(data, [read_model_key(key.read_bytes(), str(key)) for key in keys], str(place))
    check_files(signed, packed(model, "model", "0.0.0").by_path(), str(model))
    click.echo(as_json({"files": dict(signed)}) if output == "json" else f"{len(signed)} files, as they were signed")


@model.command()
@_MODEL
@output_option
def inspect(model: Path, output: str) -> None:
    """Print what MODEL, a file or a folder, says of itself, and what it would be as an artifact.

    \b
    Example:
      edgeferry model inspect model.onnx
    """
    made = packed(model, "model", "0.0.0")
    facts = {path: _facts(place) for path, (place, _) in zip(made.paths, made.files, strict=True)}
    click.echo(as_json(_described(made, facts)) if output == "json" else _inspected(made, facts))


@model.command(name="list")
@click.argument("ref")
@output_option
def list_pushed(ref: str, output: str) -> None:
    """Print the versions in a repository: REF is oci://HOST/REPOSITORY.

    \b
    Example:
      edgeferry model list oci://hub.example:8460/models/reader
    """
    host, place = split_reference(ref)
    registry = open_registry(host, logins(os.environ), "pull")
    try:
        found = list_versions(registry, place)
    finally:
        registry.close()
    if output == "json":
        click.echo(as_json([asdict(one) for one in found]))
    else:
        click.echo(
            table(
                ("VERSION", "BYTES", "FORMAT", "DIGEST"), [(o.version, o.size_bytes, o.format, o.digest) for o in found]
            )
        )


def _progress(output: str) -> Any:
    """Return what shows a push: a line that moves on a terminal, one line a file elsewhere."""

    def told(path: str, there: int, size: int) -> None:
        if output == "json":
            return
        if sys.stderr.isatty():
            click.echo(f"\r{path}  {there * 100 // max(1, size)} %  ", nl=there == size, err=True)
        elif there == size:
            click.echo(f"{path}: {size} bytes", err=True)

    return told


def _facts(place: Path) -> ModelFacts:
    with mapped(place) as data:
        return read_facts(data)


def _described(made: Packed, facts: Mapping[str, ModelFacts]) -> dict[str, Any]:
    files = {
        path: {"digest": one.digest, "sizeBytes": one.size_bytes}
        for path, (_, one) in zip(made.paths, made.files, strict=True)
    }
    return {"sizeBytes": made.size_bytes, "files": {path: files[path] | asdict(facts[path]) for path in files}}


def _inspected(made: Packed, facts: Mapping[str, ModelFacts]) -> str:
    lines = []
    for path, (_, stored) in zip(made.paths, made.files, strict=True):
        one = facts[path]
        lines.append(f"{path}  {stored.size_bytes} bytes  {stored.digest}")
        if one.format:
            lines.append(f"  {one.format}, {one.parameters} parameters{', ' + one.precision if one.precision else ''}")
        for what, ports in (("in", one.inputs), ("out", one.outputs)):
            lines += [f"  {what}  {port.name}  {port.type} [{', '.join(port.shape)}]" for port in ports]
    return "\n".join(lines)
