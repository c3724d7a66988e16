"""``python -m images``: build and push the project's images."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import cast, get_args

import click

from images import layout
from images.build import CHECKOUT, Workshop, build, default_cache
from images.debian import CannotBuild
from images.push import Registry, push
from images.recipes import RECIPES, Architecture
from images.wheels import locked

_IMAGE = click.option(
    "--image",
    "images",
    type=click.Choice(sorted(RECIPES)),
    multiple=True,
    help="Which; may be repeated.  [default: all]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Build the project's images, reproducibly and without a daemon.

    \b
    Examples:
      python -m images build --out build/images
      python -m images build --arch amd64 --arch arm64 --image agent --out build/images
      python -m images push --from build/images --to http://127.0.0.1:5000/edgeferry
    """


@main.command("build")
@_IMAGE
@click.option(
    "--arch",
    "architectures",
    type=click.Choice(get_args(Architecture)),
    multiple=True,
    default=("amd64",),
    show_default=True,
    help="May be repeated: the image then is for each of them.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the OCI image layout."
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_cache,
    help="Folder for layers and packages.  [default: ~/.cache/edgeferry/images]",
)
@click.option("--fresh", is_flag=True, help="Build every layer anew, from Debian's newest packages.")
def build_command(images: tuple[str, ...], architectures: tuple[str, ...], out: Path, cache: Path, fresh: bool) -> None:
    """Build images into an OCI image layout; print a JSON line for each.

    Needs apt and dpkg (no root) and Python 3.11. The same inputs give the same digest; each layer is built once for
    what goes into it.

    \b
    Examples:
      python -m images build --out build/images
      python -m images build --image runtime --arch arm64 --out build/images
      skopeo copy --all oci:build/images:agent docker://registry.example/edgeferry/agent:0.1.0
    """
    shop = Workshop(cache, lambda line: click.echo(line, err=True), fresh)
    for name in images or sorted(RECIPES):
        began = time.monotonic()
        try:
            made = {
                one: build(RECIPES[name], cast(Architecture, one), out, shop) for one in dict.fromkeys(architectures)
            }
        except CannotBuild as reason:
            raise click.ClickException(str(reason)) from None
        index = layout.name_index(out, name, made)
        sizes = {one: _size_bytes(out, image.digest) for one, image in made.items()}
        line = {"image": name, "digest": index.digest, "bytes": sizes, "seconds": round(time.monotonic() - began, 1)}
        click.echo(json.dumps(line))


@main.command("push")
@_IMAGE
@click.option(
    "--from",
    "out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="What `build` made.",
)
@click.option("--to", "url", required=True, help="http://HOST:PORT[/PREFIX] or https://…")
@click.option("--tag", default="latest", show_default=True, help="Name of this version in the registry.")
@click.option(
    "--login-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="File with USER:PASSWORD."
)
def push_command(images: tuple[str, ...], out: Path, url: str, tag: str, login_file: Path | None) -> None:
    """Push images from a layout to a registry; print each as REPOSITORY@DIGEST.

    \b
    Examples:
      python -m images push --from build/images --to http://127.0.0.1:5000/edgeferry
      python -m images push --from build/images --image agent --to https://registry.example --login-file login
    """
    login = "" if login_file is None else base64.b64encode(login_file.read_bytes().strip()).decode()
    registry = Registry(url, f"Basic {login}" if login else "")
    there = sorted(one["annotations"][layout.NAME] for one in layout.named(out))
    for name in images or there:
        try:
            click.echo(push(out, name, registry, tag))
        except CannotBuild as reason:
            raise click.ClickException(str(reason)) from None


@main.command("requirements")
@click.option("--image", type=click.Choice(sorted(RECIPES)), required=True, help="Which.")
@click.option(
    "--arch", type=click.Choice(get_args(Architecture)), default="amd64", show_default=True, help="For which."
)
def requirements_command(image: str, arch: str) -> None:
    """Print the part of requirements.lock that an image holds.

    \b
    Examples:
      python -m images requirements --image agent
    """
    try:
        click.echo(locked(RECIPES[image], CHECKOUT, cast(Architecture, arch)), nl=False)
    except CannotBuild as reason:
        raise click.ClickException(str(reason)) from None


def _size_bytes(out: Path, digest: str) -> int:
    manifest = json.loads(layout.blob(out, digest).read_bytes())
    return sum(int(one["size"]) for one in manifest["layers"])


if __name__ == "__main__":
    main()
