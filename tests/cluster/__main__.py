"""``python -m tests.cluster``: real clusters from the command line."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from tests.cluster import binary, control_plane, memory, packages, probe, processes, testbed
from tests.cluster.site import KINDS, Site
from tests.cluster.testbed import Testbed

_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=testbed.base(),
    show_default=True,
    help="Where the clusters' state stands.",
)
_NAME = click.option("--name", default="default", show_default=True, help="Of the test bed.")
_SITE = click.option("--site", default="", help="Of the test bed; without it the first.")
_FAULTS = (binary.Unavailable, processes.NotUp, RuntimeError, LookupError, TimeoutError)


@click.group()
def main() -> None:
    """Real Kubernetes for tests, from source, on this machine.

    \b
    Examples:
      python -m tests.cluster packages             what the machine lacks, installed
      python -m tests.cluster build                every part, once
      python -m tests.cluster up --sites 3         three sites around a hub
      python -m tests.cluster kubectl -- get nodes
      python -m tests.cluster link site-1 --cut
      python -m tests.cluster down
    """


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(binary.PARTS)))
def build(parts: tuple[str, ...]) -> None:
    """Build the parts, those alone that are not built already.

    \b
    Examples:
      python -m tests.cluster build
      python -m tests.cluster build kubecluster node
    """
    try:
        for name in parts or binary.PARTS:
            click.echo(binary.build(_say, binary.PARTS[name]))
    except binary.Unavailable as reason:
        _fail(reason)


@main.command("packages")
@click.option("--check", is_flag=True, help="Say what is missing, install nothing, exit 1 if it is anything.")
@_FOLDER
def packages_command(check: bool, folder: Path) -> None:
    """Install the Debian packages that clusters with nodes need, as root on Debian, and allow enough watches.

    \b
    Examples:
      python -m tests.cluster packages
      python -m tests.cluster packages --check
    """
    try:
        if not check:
            packages.install(_say)
            packages.allow_watches(_say)
    except RuntimeError as reason:
        _fail(reason)
    for sentence in (reasons := packages.missing(folder)):
        click.echo(sentence, err=True)
    if reasons:
        raise SystemExit(1)


@main.command()
@_FOLDER
@_NAME
@click.option(
    "--kind",
    type=click.Choice(["api", *KINDS]),
    default="api",
    show_default=True,
    help="api: control plane on this machine's loopback, no nodes, no root. The others: sites around a hub.",
)
@click.option("--sites", default=1, show_default=True, type=click.IntRange(1, 30), help="How many sites.")
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 9), help="Nodes of each site.")
@click.option("--controllers/--no-controllers", default=True, show_default=True, help="kind api: a controller manager.")
def up(folder: Path, name: str, kind: str, sites: int, nodes: int, controllers: bool) -> None:
    """Start clusters that outlive this command; print how to reach them, and how fast and large they are.

    What is there already is started again where it ended, and keeps its kind and size.

    \b
    Examples:
      python -m tests.cluster up
      python -m tests.cluster up --kind kubernetes --sites 3
      python -m tests.cluster up --kind k3s-shaped --nodes 2 --name small
    """
    began = time.monotonic()
    place = folder / name
    try:
        for dead in testbed.remove_dead(folder):
            _say(f"{dead} belonged to a run that is gone: removed")
        if kind == "api" and not (place / "testbed.json").exists():
            _up_api(place, controllers)
        else:
            _up_sites(place, kind, sites, nodes, began)
    except _FAULTS as reason:
        _fail(reason)
    click.echo(f"{name} is ready after {time.monotonic() - began:.1f} s")


def _up_api(place: Path, controllers: bool) -> None:
    components = binary.build(_say)
    if (place / "cluster.json").exists():
        cluster = control_plane.load(place)
        control_plane.start(cluster)
    else:
        cluster = control_plane.create(place, components, controllers=controllers, dies_with_us=False)
    click.echo(f"export KUBECONFIG={cluster.kubeconfig}")


def _up_sites(place: Path, kind: str, sites: int, nodes: int, began: float) -> None:
    if reasons := packages.missing(place):
        raise RuntimeError("\n".join(reasons))
    if (place / "testbed.json").exists():
        bed = testbed.load(place)
        bed.resume()
    else:
        bed = testbed.create(place, dies_with_us=False)
        bed.add_sites(sites, kind=kind, say=_say)
        for site in bed.sites:
            for _ in range(nodes - 1):
                site.add_node()
        bed.keep()
    _say(f"every node is Ready after {time.monotonic() - began:.1f} s")
    image, namespace = probe.push(bed, "1"), f"probe-{secrets.token_hex(3)}"
    asked = [(site, probe.start(site, namespace, image)) for site in bed.sites]
    for site, address in asked:
        probe.until_answer(site, address)
        _say(f"{site.name}: a pod answered through its Service after {time.monotonic() - began:.1f} s")
        site.kubectl("delete", "namespace", namespace, "--wait=false")
    _say(f"memory of all: {memory.of_testbed(bed)} MiB")
    for site in bed.sites:
        click.echo(f"export KUBECONFIG={site.cluster.kubeconfig}  # {site.name}")


@main.command()
@_FOLDER
@click.option("--name", default="", help="Of the test bed; without it all of them.")
def down(folder: Path, name: str) -> None:
    """End clusters and remove all that they made on this machine.

    \b
    Examples:
      python -m tests.cluster down
      python -m tests.cluster down --name small
    """
    for place in [folder / name] if name else sorted(folder.glob("*/")):
        if (place / "testbed.json").exists():
            testbed.load(place).destroy()
        elif (place / "cluster.json").exists():
            control_plane.destroy(control_plane.load(place))
        elif name:
            _fail(f"there is no test bed {name} in {folder}")
        else:
            continue
        click.echo(f"{place.name} is gone")


@main.command()
@_FOLDER
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(folder: Path, output: str) -> None:
    """Say which clusters there are and what of them runs.

    \b
    Examples:
      python -m tests.cluster status
      python -m tests.cluster status --output json
    """
    rows: list[dict[str, Any]] = []
    for place in sorted(folder.glob("*/")):
        if (place / "testbed.json").exists():
            bed = testbed.load(place)
            for site in bed.sites:
                parts = {**_running(site.folder), **{node.name: int(node.is_on) for node in site.nodes}}
                rows.append(
                    {
                        "name": f"{place.name}/{site.name}",
                        "kind": site.kind,
                        "url": site.cluster.url,
                        "parts": parts,
                        "link": "cut" if site.link.is_cut else "up",
                    }
                )
        elif (place / "cluster.json").exists():
            cluster = control_plane.load(place)
            rows.append({"name": place.name, "kind": "api", "url": cluster.url, "parts": _running(place)})
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        ended = [part for part, pid in row["parts"].items() if not pid]
        words = [row["name"], row["kind"], row["url"], f"link {row['link']}" if "link" in row else "no nodes"]
        click.echo("\t".join([*map(str, words), f"ended: {', '.join(ended)}" if ended else "all runs"]))


@main.command()
@_FOLDER
@_NAME
@_SITE
@click.argument("component", default="")
@click.option("--lines", default=50, show_default=True, help="The last so many.")
def logs(folder: Path, name: str, site: str, component: str, lines: int) -> None:
    """Print the logs of a site's components; without COMPONENT say which there are.

    \b
    Examples:
      python -m tests.cluster logs
      python -m tests.cluster logs kubelet --lines 200
      python -m tests.cluster logs apiserver --site site-2
    """
    place = _site(folder, name, site).folder if (folder / name / "testbed.json").exists() else folder / name
    files = [*place.glob("logs/*.log"), *place.glob("nodes/*/logs/*.log"), *place.glob("nodes/*/root/var/log/*.log")]
    if not component:
        for file in sorted(files):
            click.echo(f"{file.stem}\t{file}")
        return
    found = [file for file in sorted(files) if file.stem == component]
    if not found:
        _fail(f"no component {component}; there are {', '.join(sorted({file.stem for file in files})) or 'none'}")
    for file in found:
        click.echo(f"# {file}")
        click.echo("\n".join(file.read_text(errors="replace").splitlines()[-lines:]))


@main.command(context_settings={"ignore_unknown_options": True})
@_FOLDER
@_NAME
@_SITE
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(folder: Path, name: str, site: str, arguments: tuple[str, ...]) -> None:
    """Run kubectl as administrator of a cluster.

    \b
    Examples:
      python -m tests.cluster kubectl -- get pods --all-namespaces
      python -m tests.cluster kubectl --site site-2 -- get nodes
    """
    if (folder / name / "testbed.json").exists():
        cluster = _site(folder, name, site).cluster
    elif (folder / name / "cluster.json").exists():
        cluster = control_plane.load(folder / name)
    else:
        _fail(f"there is no cluster {name} in {folder}: run `python -m tests.cluster up`")
    command = [str(cluster.binary.parent / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", *arguments]
    raise SystemExit(subprocess.run(command, check=False).returncode)


@main.command(context_settings={"ignore_unknown_options": True})
@_FOLDER
@_NAME
@click.argument("where")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, required=True)
def enter(folder: Path, name: str, where: str, arguments: tuple[str, ...]) -> None:
    """Run a command in the network of WHERE: ``hub`` or a site.

    \b
    Examples:
      python -m tests.cluster enter hub -- curl http://10.200.0.1:5000/v2/_catalog
      python -m tests.cluster enter site-1 -- ping -c 3 10.200.0.1
    """
    bed = _bed(folder, name)
    try:
        words = bed.enter() if where == "hub" else _site(folder, name, where).enter()
    except _FAULTS as reason:
        _fail(reason)
    os.execvp(words[0], [*words, *arguments])


@main.command()
@_FOLDER
@_NAME
@click.argument("site")
@click.option("--cut", "cut", is_flag=True, help="Lose every packet.")
@click.option("--restore", is_flag=True, help="Carry packets again.")
@click.option("--delay-ms", default=0.0, help="One way.")
@click.option("--jitter-ms", default=0.0, help="The delay is so much more or less.")
@click.option("--loss", default=0.0, type=click.FloatRange(0, 1), help="Share of packets that are lost.")
@click.option("--rate-mbit", default=0.0, help="At most; 0: no limit.")
def link(folder: Path, name: str, site: str, cut: bool, restore: bool, **shape: float) -> None:
    """Steer the line between SITE and the hub; delay, loss and rate that are not given are none.

    \b
    Examples:
      python -m tests.cluster link site-1 --cut
      python -m tests.cluster link site-1 --restore
      python -m tests.cluster link site-1 --delay-ms 300 --loss 0.01 --rate-mbit 2
    """
    line = _site(folder, name, site).link
    if cut or restore:
        line.cut() if cut else line.restore()
    else:
        line.shape(**shape)


@main.command()
@_FOLDER
@_NAME
@click.argument("site")
@click.argument("state", type=click.Choice(["on", "off"]))
def power(folder: Path, name: str, site: str, state: str) -> None:
    """Cut SITE's power, or give it back; disks are kept.

    \b
    Examples:
      python -m tests.cluster power site-1 off
      python -m tests.cluster power site-1 on
    """
    chosen = _site(folder, name, site)
    try:
        chosen.power_on() if state == "on" else chosen.power_off()
    except _FAULTS as reason:
        _fail(reason)


def _running(folder: Path) -> dict[str, int]:
    return {name: processes.pid(folder, name) for name in processes.names(folder)}


def _bed(folder: Path, name: str) -> Testbed:
    try:
        return testbed.load(folder / name)
    except FileNotFoundError:
        _fail(f"there is no test bed {name} in {folder}: run `python -m tests.cluster up --kind kubernetes`")


def _site(folder: Path, name: str, site: str) -> Site:
    sites = {one.name: one for one in _bed(folder, name).sites}
    if found := sites.get(site or next(iter(sites), "")):
        return found
    return _fail(f"there is no site {site} in {name}; there are {', '.join(sites) or 'none'}")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _fail(reason: object) -> NoReturn:
    raise click.ClickException(str(reason)) from None


if __name__ == "__main__":
    main()
