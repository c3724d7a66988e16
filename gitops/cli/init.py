"""``edgeferry init``."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path

import click

from agent.wire.errors import Stop
from gitops.cli.output import as_json, output_option


class NotEmpty(Stop):
    """The folder for the new model repository holds files that the template would overwrite."""

    code = "EF1090"


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--git/--no-git", default=True, show_default=True, help="Make it a Git repository with branch main.")
@output_option
def init(folder: Path, git: bool, output: str) -> None:
    """Start a model repository in FOLDER: an example model, clusters, a placement, CI workflows.

    Nothing that is there already is overwritten.

    \b
    Examples:
      edgeferry init models
      cd models && edgeferry validate && git add . && git commit -m "Start"
    """
    with as_file(files("gitops") / "template") as template, as_file(files("gitops") / "schemas") as schemas:
        sources = {path.relative_to(template): path for path in template.rglob("*") if path.is_file()}
        sources |= {Path(".schemas", path.name): path for path in schemas.glob("*.json")}
        wanted = sorted(sources)
        there = [str(path) for path in wanted if (folder / path).exists()]
        if there:
            raise NotEmpty(f"{', '.join(there[:3])} exist", where=str(folder), do="choose an empty folder")
        for path in wanted:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sources[path], folder / path)
    if git and not (folder / ".git").exists():
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(folder)], check=True)
    if output == "json":
        click.echo(as_json({"folder": str(folder), "files": [str(path) for path in wanted]}))
        return
    click.echo(f"{len(wanted)} files in {folder}. Next:")
    click.echo(f"  cd {folder} && edgeferry validate && git add . && git commit -m 'Start'")
    click.echo("  edgeferry hub serve --source .")
