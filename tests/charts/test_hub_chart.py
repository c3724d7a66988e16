"""charts/hub: what it asks for, what it refuses, and that its arguments are the hub's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gitops.cli.hub import serve
from tests.charts.test_agent_chart import CONFINED, helm, one

CHART = Path(__file__).parents[2] / "charts" / "hub"
NEEDED = ("--set=source.url=https://git.example/models.git",)
EVERYTHING = (
    "--set=fleet.url=https://git.example/fleet.git",
    "--set=git.existingSecret=git",
    "--set=tls.existingSecret=tls",
    "--set=webhook.existingSecret=hook",
)


def rendered(*options: str) -> list[dict[str, Any]]:
    done = helm("template", "hub", str(CHART), "--namespace=edgeferry", "--kube-version=1.34.0", *NEEDED, *options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def container(*options: str) -> dict[str, Any]:
    pod = one(rendered(*options), "Deployment", "edgeferry-hub")["spec"]["template"]["spec"]
    found: dict[str, Any] = pod["containers"][0]
    return found


def test_it_passes_helm_lint() -> None:
    done = helm("lint", "--strict", str(CHART), *NEEDED)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("options", [(), EVERYTHING, ("--set=tls.name=hub.example",)], ids=["least", "most", "own-tls"])
def test_every_argument_is_an_option_of_hub_serve(options: tuple[str, ...]) -> None:
    known = {name for parameter in serve.params for name in parameter.opts}
    first, second, *given = container(*options)["args"]
    assert (first, second) == ("hub", "serve")
    assert {each.partition("=")[0] for each in given} <= known


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set=source.url=models",), "url"),
        ((*NEEDED, "--set=tls.name=a", "--set=tls.existingSecret=b"), "not both"),
        ((*NEEDED, "--set=imgae.tag=1"), "imgae"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_by_its_name(options: tuple[str, ...], said: str) -> None:
    done = helm("template", "hub", str(CHART), "--kube-version=1.34.0", *options)
    assert done.returncode != 0
    assert said in done.stderr


def test_it_is_confined_and_has_no_account() -> None:
    pod = one(rendered(*EVERYTHING), "Deployment", "edgeferry-hub")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"] == CONFINED
    assert not [each for each in rendered(*EVERYTHING) if "Role" in each["kind"]]


def test_secrets_are_mounted_and_never_copied() -> None:
    objects = rendered(*EVERYTHING)
    assert not [each for each in objects if each["kind"] == "Secret"]
    pod = one(objects, "Deployment", "edgeferry-hub")["spec"]["template"]["spec"]
    assert {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume} == {"git", "tls", "hook"}


def test_its_keys_outlive_the_release() -> None:
    claim = one(rendered(), "PersistentVolumeClaim", "edgeferry-hub")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(("options", "scheme"), [((), "HTTP"), (("--set=tls.name=hub.example",), "HTTPS")])
def test_probes_speak_what_the_hub_speaks(options: tuple[str, ...], scheme: str) -> None:
    found = container(*options)
    assert {found[probe]["httpGet"]["scheme"] for probe in ("readinessProbe", "livenessProbe")} == {scheme}
    assert "0.0.0.0:8460" in json.dumps(found["args"])
