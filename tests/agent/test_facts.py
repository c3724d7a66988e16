"""What an agent measures: by files of the machine and its drivers, by nodes, and by a file of the site's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config
from agent.folding import fold
from agent.own_facts import OwnFacts
from agent.platforms.accelerators import accelerators
from agent.platforms.host_facts import HostFacts
from agent.platforms.kubernetes_facts import distribution, node_facts
from placement.fact_names import definition

GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


NVIDIA = {
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA L4\nIRQ: 32\n",
    "proc/driver/nvidia/gpus/0000:02:00.0/information": "Model: \t\t NVIDIA L4\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\n",
}
AMD = {
    "sys/class/drm/card0/device/vendor": "0x1002\n",
    "sys/class/drm/card0/device/uevent": "DRIVER=amdgpu\nPCI_CLASS=38000\n",
    "sys/class/drm/card0/device/product_name": "Instinct MI210\n",
    "sys/class/drm/card0/device/mem_info_vram_total": f"{64 * GIB}\n",
    "sys/class/drm/card0-DP-1/status": "connected\n",
    "sys/module/amdgpu/version": "6.3.6\n",
}
INTEL = {
    "sys/class/drm/card1/device/vendor": "0x8086\n",
    "sys/class/drm/card1/device/uevent": "DRIVER=xe\n",
    "sys/class/drm/card2/device/vendor": "0x1a03\n",
    "sys/class/drm/card2/device/uevent": "DRIVER=ast\n",
}
JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref\n",
}


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        ({}, {"accelerator.kind": "", "accelerator.count": "0"}),
        (NVIDIA, {"accelerator.kind": "nvidia", "accelerator.count": "2", "accelerator.nvidia.count": "2",
                  "accelerator.nvidia.model": "NVIDIA L4", "accelerator.nvidia.driver": "550.54.14"}),
        (AMD, {"accelerator.kind": "amd", "accelerator.count": "1", "accelerator.amd.count": "1",
               "accelerator.amd.model": "Instinct MI210", "accelerator.amd.driver": "6.3.6",
               "accelerator.amd.memory": str(64 * GIB), "accelerator.memory": str(64 * GIB)}),
        (INTEL, {"accelerator.kind": "intel", "accelerator.count": "1", "accelerator.intel.count": "1"}),
        (JETSON, {"accelerator.kind": "jetson", "accelerator.count": "1", "accelerator.jetson.count": "1",
                  "accelerator.jetson.model": "NVIDIA Jetson Orin Nano Developer Kit",
                  "accelerator.jetson.memory": str(8 * GIB), "accelerator.jetson.driver": "35.4.1",
                  "accelerator.memory": str(8 * GIB)}),
    ],
    ids=["none", "nvidia", "amd", "intel", "jetson"],
)  # fmt: skip
def test_accelerators_are_found_by_the_files_of_their_drivers(
    files: dict[str, str], facts: dict[str, str], tmp_path: Path
) -> None:
    assert accelerators(tree(tmp_path, files), 8 * GIB) == facts


def test_makers_stand_beside_each_other(tmp_path: Path) -> None:
    found = accelerators(tree(tmp_path, NVIDIA | AMD), 0)
    assert (found["accelerator.kind"], found["accelerator.count"]) == ("amd,nvidia", "3")


def test_this_machine_tells_of_itself_in_the_units_of_the_definitions(tmp_path: Path) -> None:
    found = HostFacts(tmp_path).measure()
    assert int(found["memory.capacity"]) > 1 << 20
    assert int(found["disk.capacity"]) >= int(found["disk.free"]) >= 0
    assert int(found["cpu.capacity"]) == len(os.sched_getaffinity(0))
    assert all(definition(name) is not None for name in found)


def test_a_runtime_is_asked_for_its_version_once_until_its_program_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, asked = tmp_path / "containerd", tmp_path / "asked"
    program.write_text(
        f"#!/bin/sh\necho x >> {asked}\necho 'containerd github.com/containerd/containerd v1.7.2 0cae'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    host = HostFacts(tmp_path)
    assert [host.measure()["runtime.containerd.version"] for _ in range(3)] == ["1.7.2"] * 3
    assert asked.read_text().count("x") == 1
    program.write_text("#!/bin/sh\nexit 1\n# changed\n")
    assert "runtime.containerd.version" not in host.measure()


def node(allocatable: dict[str, str], labels: dict[str, str] | None = None, **info: str) -> dict[str, object]:
    basic = {"architecture": "amd64", "operatingSystem": "linux", "containerRuntimeVersion": "containerd://1.7.2"}
    return {
        "metadata": {"labels": labels or {}},
        "status": {"allocatable": allocatable, "nodeInfo": {**basic, "kernelVersion": "5.15.0", **info}},
    }


def test_several_nodes_are_folded_as_their_facts_are_defined() -> None:
    small = node({"cpu": "3500m", "memory": "8137000Ki", "ephemeral-storage": "100"})
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
    big = node(
        {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "2"}, labels, containerRuntimeVersion="containerd://1.6.9"
    )
    found = fold([node_facts(small), node_facts(big)])
    assert found["cpu.capacity"] == "19.5" and found["node.cpu.capacity"] == "16"
    assert int(found["memory.capacity"]) == 8137000 * 1024 + 64 * GIB
    assert int(found["node.memory.capacity"]) == 64 * GIB
    assert (found["arch"], found["nodes.count"], found["runtime.containerd.version"]) == ("amd64", "2", "1.6.9")
    assert (found["accelerator.kind"], found["accelerator.count"]) == ("nvidia", "2")
    assert int(found["accelerator.nvidia.memory"]) == 23034 << 20
    mixed = fold([node_facts(small), node_facts(node({}, architecture="arm64"))])
    assert "arch" not in mixed and mixed["nodes.arch"] == "amd64,arm64"


def test_a_jetson_is_told_from_other_devices_by_its_labels() -> None:
    found = node_facts(node({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu.product": "Orin-(nvgpu)"}))
    assert found["accelerator.kind"] == "jetson"


@given(st.lists(st.dictionaries(st.sampled_from(("cpu.capacity", "arch", "nodes.arch", "kernel.version", "what")),
                                st.sampled_from(("1", "2.5", "a,b", "5.15.0", ""))), max_size=4))  # fmt: skip
def test_folding_knows_no_order_and_leaves_one_node_as_it_is(nodes: list[dict[str, str]]) -> None:
    assert fold(nodes) == fold(nodes[::-1])
    assert all(definition(name) is not None for name in fold(nodes))


@pytest.mark.parametrize(
    ("version", "label", "name"),
    [("v1.29.3+k3s1", "", "k3s"), ("v1.28.4+rke2r1", "", "rke2"), ("v1.27.3-gke.100", "", "gke"),
     ("v1.29.1-eks-508b6b3", "", "eks"), ("v1.29.0", "kubernetes.azure.com/cluster", "aks"),
     ("v1.29.0", "node.openshift.io/os_id", "openshift"), ("v1.29.0", "", "kubernetes")],
)  # fmt: skip
def test_a_distribution_is_told_by_version_or_label(version: str, label: str, name: str) -> None:
    assert distribution(version, [node({}, {label: "x"} if label else {})]) == name


def own(tmp_path: Path, text: str | None) -> OwnFacts:
    if text is not None:
        (tmp_path / "facts.yaml").write_text(text)
    return OwnFacts.of(tmp_path, Config("milan-01", "f"))


def test_a_sites_own_facts_come_from_a_file_and_a_faulty_one_is_left_out(tmp_path: Path) -> None:
    facts = own(
        tmp_path, "camera.count: 4\ncoolant: [water, oil]\nspeed: 1.5\nmemory.capacity: 64Gi\nBad Name: x\nno: {}\n"
    )
    assert facts.facts() == {"camera.count": "4", "coolant": "water,oil", "speed": "1.5"}
    assert [one.code for one in facts.faults] == ["EF4402"] * 3
    assert not facts.changed()
    (tmp_path / "facts.yaml").write_text("camera.count: 5\n")
    assert facts.changed()
    assert (facts.facts(), facts.faults) == ({"camera.count": "5"}, ())


@pytest.mark.parametrize(
    "text", ["[1, 2]", "a: [", "a: " + "x" * (70 << 10), "a: &x 1\nb: *x\n", "[" * 5000], ids=range(5)
)
def test_a_file_that_is_no_mapping_is_a_fault_and_no_facts(text: str, tmp_path: Path) -> None:
    facts = own(tmp_path, text)
    assert facts.facts() == {}
    assert [one.code for one in facts.faults] == ["EF4401"]


def test_no_file_is_no_fault_unless_somebody_named_it(tmp_path: Path) -> None:
    assert (own(tmp_path, None).facts(), own(tmp_path, None).faults) == ({}, ())
    named = OwnFacts.of(tmp_path, Config("milan-01", "f", facts=str(tmp_path / "mine.yaml")))
    assert named.facts() == {}
    assert [one.code for one in named.faults] == ["EF4401"]


def test_more_facts_than_are_taken_are_said(tmp_path: Path) -> None:
    facts = own(tmp_path, "".join(f"f{n:03d}: {n}\n" for n in range(200)))
    assert len(facts.facts()) == 128
    assert [one.code for one in facts.faults] == ["EF4402"]
