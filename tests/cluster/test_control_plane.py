"""The tests' own cluster: it comes up, it goes away whatever happens, and it leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.actions import Remove
from tests.agent.platforms.kubernetes_site import deployment, site, staged
from tests.cluster import binary, control_plane, processes
from tests.cluster.fixtures import binary_or_skip

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def components() -> Path:
    return binary_or_skip()


def until(so: Callable[[], bool], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_test_run_leaves_no_process(components: Path, tmp_path: Path) -> None:
    text = """
        import os, signal, sys
        from pathlib import Path
        from tests.cluster import control_plane
        cluster = control_plane.create(Path(sys.argv[1]), Path(sys.argv[2]), controllers=False, dies_with_us=True)
        print(*control_plane.running(cluster).values(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), str(tmp_path / "c"), str(components)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pids = [int(one) for one in ended.stdout.split()]
    assert len(pids) == 2
    until(lambda: not any(map(alive, pids)))


def test_up_outlives_the_command_and_down_leaves_nothing(components: Path, tmp_path: Path) -> None:
    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster", *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = ("--folder", str(tmp_path))
    try:
        assert "export KUBECONFIG=" in command("up", *folder, "--no-controllers")
        cluster = control_plane.load(tmp_path / "default")
        pids = control_plane.running(cluster)
        assert all(pids.values()) and set(pids) == {"etcd", "apiserver"}
        assert "kube-system" in command("kubectl", *folder, "--", "get", "namespaces")
        os.kill(pids["apiserver"], signal.SIGKILL)
        assert "is ready" in command("up", *folder), "what a killed run left is taken up"
        assert control_plane.load(tmp_path / "default").url == cluster.url
        pids = control_plane.running(cluster)
    finally:
        command("down", *folder)
    until(lambda: not any(map(alive, pids.values())))
    assert list(tmp_path.iterdir()) == []
    assert command("status", *folder) == ""


def test_a_component_that_does_not_come_up_says_why(components: Path, tmp_path: Path) -> None:
    command = [str(components), "kube-apiserver", "--no-such-flag"]
    processes.start(tmp_path, "apiserver", command, dies_with_us=True)
    with pytest.raises(processes.NotUp, match="unknown flag: --no-such-flag"):
        processes.until(lambda: False, "its end", tmp_path, "apiserver")


def test_the_cache_is_named_by_what_it_is_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(binary.KUBECLUSTER.folder, tmp_path / "kubecluster")
    before = binary.cache()
    monkeypatch.setattr(binary, "MODULES", tmp_path)
    assert binary.cache() == before
    with (tmp_path / "kubecluster" / "main.go").open("a") as file:
        file.write("\n")
    assert binary.cache() != before


def test_with_its_controllers_a_real_deployment_becomes_current_and_goes_with_what_it_owns(
    components: Path, tmp_path: Path
) -> None:
    cluster = control_plane.create(tmp_path / "c", components, controllers=True, dies_with_us=True)
    try:
        with site(cluster, tmp_path / "state", "models") as edge:
            entry = staged("models", deployment(replicas=0))
            edge.switch(entry)
            assert edge.until_health("current", entry).drift == ""
            sets = edge.person.resource("apps/v1", "ReplicaSet")
            assert edge.person.list(sets, "models")["items"]
            edge.platform.execute(Remove("model", "defect-detector"))
            until(lambda: not edge.person.list(sets, "models")["items"])
    finally:
        control_plane.destroy(cluster)
