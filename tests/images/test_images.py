"""The project's images: reproducible, small, of the right architecture, and able to do what they are for."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from images import layer, layout
from images.build import Workshop, build, default_cache
from images.debian import CannotBuild
from images.project import compile_all
from images.push import Registry, push
from images.recipes import MACHINES, RECIPES, Architecture, Recipe

pytestmark = pytest.mark.timeout(600)

ROOT: Final = Path(__file__).parents[2]
_ELF_MACHINE: Final = {"amd64": 62, "arm64": 183}
_PYTHON: Final = "usr/bin/python3.11"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with every image for both architectures; layers come from the cache where they are kept."""
    out = tmp_path_factory.mktemp("images")
    shop = Workshop(default_cache(), print)
    try:
        for name, recipe in RECIPES.items():
            images = {one: build(recipe, one, out, shop) for one in MACHINES}
            layout.name_index(out, name, images)
    except CannotBuild as reason:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(f"the images cannot be built, on CI too: {reason}")
        pytest.skip(f"the images cannot be built here: {reason}")
    return out


@pytest.fixture(scope="session")
def roots(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """IMAGE-ARCHITECTURE/: what containers of the images see."""
    folder = tmp_path_factory.mktemp("roots")
    for name in RECIPES:
        for architecture in MACHINES:
            for one in manifest(built, name, architecture)["layers"]:
                with tarfile.open(layout.blob(built, one["digest"])) as tar:
                    tar.extractall(folder / f"{name}-{architecture}", filter="tar")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def read(out: Path, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(layout.blob(out, digest).read_bytes())
    return found


def manifest(out: Path, name: str, architecture: str) -> dict[str, Any]:
    entry = next(one for one in layout.named(out) if one["annotations"][layout.NAME] == name)
    images = read(out, entry["digest"])["manifests"]
    return read(out, next(one["digest"] for one in images if one["platform"]["architecture"] == architecture))


def members(out: Path, name: str, architecture: str) -> Iterator[tarfile.TarInfo]:
    for one in manifest(out, name, architecture)["layers"]:
        with tarfile.open(layout.blob(out, one["digest"])) as tar:
            yield from tar


def python(root: Path) -> list[str]:
    """Return the command that runs an image's Python with the image's libraries, without being root."""
    libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"
    return [f"{root}/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, str(root / _PYTHON), "-s"]


def environment(root: Path) -> dict[str, str]:
    return {"PYTHONHOME": f"{root}/usr", "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_same_inputs_give_the_same_image(built: Path, tmp_path: Path) -> None:
    recipe = RECIPES["runtime"]
    cache = tmp_path / "cache"
    shutil.copytree(default_cache() / "apt-amd64", cache / "apt-amd64", symlinks=True)
    again = build(recipe, "amd64", tmp_path / "out", Workshop(cache, print))
    entry = next(one for one in layout.named(built) if one["annotations"][layout.NAME] == "runtime")
    images = read(built, entry["digest"])["manifests"]
    assert again.digest in {one["digest"] for one in images}


def test_a_layer_does_not_tell_who_made_it_and_when(tmp_path: Path) -> None:
    found = []
    for name, umask, order in (("one", 0o022, ("a", "b")), ("two", 0o077, ("b", "a"))):
        root = tmp_path / name
        before = os.umask(umask)
        try:
            (root / "folder").mkdir(parents=True)
            for one in order:
                (root / "folder" / f"{one}.py").write_text(f"{one} = {{1, 2, 'x', ('y', None)}}\n")
            (root / "link").symlink_to("folder")
            os.utime(root / "folder" / "a.py", (1, 1))
        finally:
            os.umask(before)
        compile_all(root, "folder")
        found.append(layer.write(root, tmp_path / f"{name}.tar.gz").digest)
    assert found[0] == found[1]


@pytest.mark.parametrize("architecture", MACHINES)
@pytest.mark.parametrize("name", RECIPES)
def test_every_program_and_library_is_of_the_image_s_architecture(
    roots: Path, name: str, architecture: Architecture
) -> None:
    found = set()
    for path in (roots / f"{name}-{architecture}").rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                head = file.read(20)
            if head[:4] == b"\x7fELF":
                found.add(struct.unpack_from("<H", head, 18)[0])
    assert found == {_ELF_MACHINE[architecture]}


@pytest.mark.parametrize("architecture", MACHINES)
@pytest.mark.parametrize("name", RECIPES)
def test_an_image_runs_as_nobody_in_particular_and_lets_nobody_become_root(
    built: Path, name: str, architecture: Architecture
) -> None:
    config = read(built, manifest(built, name, architecture)["config"]["digest"])
    assert config["architecture"] == architecture
    assert config["config"]["User"].partition(":")[0].isdecimal() and not config["config"]["User"].startswith("0")
    for one in members(built, name, architecture):
        assert not one.mode & (stat.S_ISUID | stat.S_ISGID), one.name
        assert one.issym() or one.name == "tmp" or not one.mode & stat.S_IWOTH, one.name
        assert one.isdir() or one.issym() or one.mode & stat.S_IROTH, f"{one.name}: a random user cannot read it"


@pytest.mark.parametrize("name", RECIPES)
def test_python_is_shipped_compiled(roots: Path, name: str) -> None:
    root = roots / f"{name}-amd64"
    recipe: Recipe = RECIPES[name]
    site = root / "usr/local/lib/python3.11/dist-packages"
    for folder in [root / "usr/lib/python3.11/json", *(site / package for package in recipe.packages)]:
        sources = {path.stem for path in folder.glob("*.py")}
        compiled = {path.name.removesuffix(".cpython-311.pyc") for path in folder.glob("__pycache__/*.pyc")}
        assert sources == compiled
        pyc = next(folder.glob("__pycache__/*.pyc")).read_bytes()
        assert struct.unpack_from("<I", pyc, 4)[0] == 0b01, "hashed, and not checked at start"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="runs the amd64 image's programs")
@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("agent", "agent.cli, agent.assembly, agent.platforms.kubernetes, agent.platforms.host"),
        ("hub", "gitops.cli.main, gitops.running, gitops.serve.app"),
    ],
)
def test_our_programs_start_in_their_image(roots: Path, name: str, modules: str, tmp_path: Path) -> None:
    root = roots / f"{name}-amd64"
    script = root / "usr/local/bin" / RECIPES[name].entrypoint[0]
    shown = subprocess.run(
        [*python(root), str(script), "--version"], env=environment(root), cwd=tmp_path, capture_output=True, text=True
    )
    assert "version" in shown.stdout, shown.stderr
    code = (
        f"import {modules}, sys; print([one.__file__ for one in sys.modules.values() if getattr(one, '__file__', 0)])"
    )
    loaded = subprocess.run(
        [*python(root), "-c", code], env=environment(root), cwd=tmp_path, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    assert str(ROOT) not in loaded.stdout


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="runs the amd64 image's programs")
def test_the_agent_image_carries_helm_3(roots: Path) -> None:
    helm = roots / "agent-amd64" / "usr/local/bin/helm"
    shown = subprocess.run([helm, "version", "--short"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("v3.")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="runs the amd64 image's programs")
def test_the_runtime_image_answers_the_digits_question(roots: Path, tmp_path: Path) -> None:
    root = roots / "runtime-amd64"
    digits = ROOT / "examples" / "digits"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = root / "usr/local/bin/edgeferry-onnx-runtime"
    command = [*python(root), str(script), "--port", str(port), "--name", "digits"]
    command += ["--model", str(digits / "digits-1.0.0.onnx")]
    question = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/digits/infer",
        (digits / "selftest-input.json").read_bytes(),
        {"Content-Type": "application/json"},
    )
    with subprocess.Popen(command, env=environment(root), cwd=tmp_path, stderr=subprocess.PIPE) as server:
        try:
            answer = asked(question, server)
        finally:
            server.kill()
    wanted = json.loads((digits / "selftest-output.json").read_text())["outputs"]
    for one in wanted:
        found = next(output for output in answer["outputs"] if output["name"] == one["name"])
        assert found["data"] == pytest.approx(one["data"], abs=0.001)


def asked(question: urllib.request.Request, server: subprocess.Popen[bytes]) -> dict[str, Any]:
    while True:
        try:
            with urllib.request.urlopen(question, timeout=60) as answer:
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, (server.stderr or open(os.devnull, "rb")).read().decode()  # noqa: SIM115, PTH123


@pytest.mark.parametrize("name", RECIPES)
def test_a_containerfile_holds_what_its_recipe_holds(name: str) -> None:
    recipe = RECIPES[name]
    text = (ROOT / "images" / f"Containerfile.{name}").read_text()
    implied = {"base-files", "dash", "libpython3.11-stdlib", "python3.11-minimal"}
    line = text.rpartition("--no-install-recommends ")[2].partition(" \\")[0]
    assert set(line.split()) == set(recipe.debian) - implied | {"python3.11"}
    assert f"images requirements --image {name}" in text
    assert f"ENTRYPOINT {json.dumps(list(recipe.entrypoint))}" in text
    assert f"CMD {json.dumps(list(recipe.command))}" in text


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A real registry on a free port; Debian's docker-registry."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "registry.yml"
    storage = f"{{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {storage}\nhttp: {{addr: 127.0.0.1:{port}}}\n")
    with subprocess.Popen([program, "serve", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_a_pushed_image_is_whole_in_the_registry(built: Path, registry: str) -> None:
    reference = push(built, "runtime", Registry(f"{registry}/edgeferry"), "1.0")
    assert push(built, "runtime", Registry(f"{registry}/edgeferry"), "1.0") == reference
    name, _, digest = reference.partition("/")[2].partition("@")
    for wanted in (digest, "1.0"):
        accept = {"Accept": f"{layout.INDEX}, {layout.MANIFEST}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{registry}/v2/{name}/manifests/{wanted}", headers=accept)
        ) as answer:
            assert answer.headers["Docker-Content-Digest"] == digest


def test_a_registry_that_is_not_there_is_named(built: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(CannotBuild, match=f"127.0.0.1:{port} does not answer"):
            push(built, "runtime", Registry(f"http://127.0.0.1:{port}"), "latest")
