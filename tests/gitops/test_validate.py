"""`edgeferry validate`, and folders as trees, on real folders and real Git repositories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.wire.errors import EdgeferryError
from gitops.cli.main import edgeferry
from gitops.folder import FolderUnreadable, read_folder
from gitops.snapshot import encode_snapshot
from tests.gitops.trees import document, model

ROOT = Path(__file__).parents[2]
ME = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *ME, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def validate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(edgeferry, ["validate", *map(str, arguments)])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    write(folder, model("digits", "1.0.0") | {"clusters/a.yaml": document("Cluster", "a")})
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Start")
    return folder


def test_the_template_has_no_faults(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "repo-template", tmp_path / "t")
    done = validate(tmp_path / "t")
    assert done.exit_code == 0
    counts = "2 models, 1 workload, 3 versions, 1 runtime, 3 clusters, 1 placement"
    assert done.output == f"{counts}: no faults\n"


def test_faults_are_printed_a_line_each_and_end_with_1(repository: Path) -> None:
    write(repository, {"clusters/b.yaml": document("Cluster", "B"), "clusters/c.yaml": "a: ["})
    done = validate(repository)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0].startswith("clusters/b.yaml:3:18: EF1015 BadValue: metadata.name: `B` is not allowed; write ")
    assert lines[1].startswith("clusters/c.yaml:2:1: EF1002 BadYaml: ")
    assert lines[2] == "1 model, 1 version, 1 cluster: 2 faults"


def test_json_has_every_fault_and_the_counts(repository: Path) -> None:
    write(repository, {"clusters/b.yaml": document("Cluster", "B")})
    done = validate(repository, "--output", "json")
    told = json.loads(done.output)
    assert done.exit_code == 1
    assert [(one["path"], one["line"], one["code"], one["source"]) for one in told["faults"]] == [
        ("clusters/b.yaml", 3, "EF1015", "main")
    ]
    assert told["counts"]["models"] == 1


def test_a_version_changed_since_the_base_is_a_fault(repository: Path) -> None:
    file = repository / "models/digits/versions/1.0.0/digits.bin"
    file.write_text("other")
    assert validate(repository).exit_code == 0
    done = validate(repository, "--base", "main")
    assert done.exit_code == 1
    assert done.output.startswith("models/digits/versions/1.0.0/: EF1023 ChangedAfterPublication: ")
    git(repository, "commit", "--quiet", "--all", "-m", "Change it")
    assert validate(repository, "--base", "HEAD~1").exit_code == 1
    assert validate(repository, "--base", "HEAD").exit_code == 0


def test_a_new_version_beside_those_of_the_base_is_none(repository: Path) -> None:
    write(repository, model("digits", "1.1.0"))
    assert validate(repository, "--base", "main").output == "1 model, 2 versions, 1 cluster: no faults\n"


@pytest.mark.parametrize("base", ["nothing", "--output=x", "main:models"])
def test_a_base_that_is_no_commit_is_told(repository: Path, base: str) -> None:
    done = validate(repository, "--base", base)
    assert isinstance(done.exception, EdgeferryError)
    assert "EF1041 BaseNotFound" in str(done.exception)


def test_a_directory_of_a_repository_is_compared_with_the_same_directory(repository: Path) -> None:
    write(repository, {f"team/{path}": text for path, text in model("letters", "1.0.0").items()})
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "A team's")
    assert validate(repository / "team", "--base", "HEAD").exit_code == 0
    (repository / "team/models/letters/versions/1.0.0/letters.bin").write_text("other")
    done = validate(repository / "team", "--base", "HEAD")
    assert "models/letters/versions/1.0.0/: EF1023" in done.output


def test_a_placement_that_names_an_unknown_cluster_is_noted_and_no_fault(repository: Path) -> None:
    write(repository, {"p.yaml": document("Placement", "p", "{model: digits, clusters: [{names: [a, milan]}]}")})
    done = validate(repository)
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == (
        "note: p.yaml:4:46: EF1033 UnknownCluster: cluster milan has no document yet; "
        "add it, or mend the name (there are: a)"
    )


def test_a_further_source_is_validated_by_itself(tmp_path: Path) -> None:
    write(tmp_path, model("arm", "1.0.0", spec="delivery: server, runtime: onnx"))
    assert "EF1021 DanglingReference: there is no runtime onnx" in validate(tmp_path).output
    done = validate(tmp_path, "--partial")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "not checked, as other sources may hold them: Runtime/onnx",
        "1 model, 1 version: no faults",
    ]


def test_what_an_admitted_source_may_hold_is_not_missed(tmp_path: Path) -> None:
    spec = '{url: ../robotics, allow: {kinds: [Model, ModelVersion], names: ["robot-*"]}}'
    files = {"sources/robotics.yaml": document("Source", "robotics", spec)}
    for name in ("robot-arm", "arm"):
        files[f"placements/{name}.yaml"] = document("Placement", name, f"{{model: {name}}}")
    write(tmp_path, files)
    done = validate(tmp_path)
    assert [line for line in done.output.splitlines() if "EF1021" in line] == [
        "placements/arm.yaml:4:15: EF1021 DanglingReference: there is no model arm; "
        "add it, or mend the name (there are: none)"
    ]


def test_ignored_files_symbolic_links_and_submodules_are_left_out(repository: Path, tmp_path: Path) -> None:
    write(repository, {".gitignore": "*.tmp\nbuild/\n", "clusters/x.tmp": "x", "build/clusters/b.yaml": "a: ["})
    (repository / "clusters" / "link.yaml").symlink_to("/etc/passwd")
    git(repository, "add", "--all")
    (repository / "clusters" / "loose.yaml").symlink_to("a.yaml")
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    git(inner, "commit", "--quiet", "--allow-empty", "-m", "x")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "clusters/sub")
    assert sorted(path for path in read_folder(repository).files if path.startswith(("clusters", "build"))) == [
        "clusters/a.yaml"
    ]


def test_a_file_has_the_id_that_git_gives_it(repository: Path) -> None:
    write(
        repository, {"clusters/a.yaml": document("Cluster", "a", labels="x: y"), "new file.txt": "new", '"q.txt': "q"}
    )
    files = read_folder(repository).files
    for path, file in files.items():
        assert file.oid == git(repository, "hash-object", "--", path)
    plain = repository.parent / "plain"
    shutil.copytree(repository, plain, ignore=shutil.ignore_patterns(".git"))
    assert read_folder(plain).files == files


def test_a_large_file_has_the_id_of_its_pointer(repository: Path) -> None:
    """A clean filter, as Git LFS is one, decides what is committed: also for files that are not committed yet."""
    git(repository, "config", "filter.short.clean", "head -c 3")
    write(repository, {".gitattributes": "*.big filter=short\n", "sub/a.big": "abcdef"})
    blob = subprocess.run(
        ["git", "hash-object", "--stdin"], input=b"abc", cwd=repository, capture_output=True, check=True
    )
    assert read_folder(repository).files["sub/a.big"].oid == blob.stdout.decode().strip()
    assert read_folder(repository / "sub").files["a.big"].oid == blob.stdout.decode().strip()
    tree = read_folder(repository)
    assert tree.blobs.read(tree.files["sub/a.big"], 100) == b"abcdef"


def test_a_deleted_file_is_gone_before_it_is_committed(repository: Path) -> None:
    (repository / "clusters/a.yaml").unlink()
    assert "clusters/a.yaml" not in read_folder(repository).files


def test_an_ignored_folder_is_read_as_a_plain_one(repository: Path) -> None:
    write(repository, {".gitignore": "out/\n", "out/clusters/b.yaml": document("Cluster", "b")})
    assert list(read_folder(repository / "out").files) == ["clusters/b.yaml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_told(repository: Path) -> None:
    (repository / "clusters/a.yaml").chmod(0)
    with pytest.raises(FolderUnreadable):
        read_folder(repository).blobs.read(read_folder(repository).files["clusters/a.yaml"], 10)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FolderUnreadable, match="no such folder"):
        read_folder(tmp_path / "nothing")


def test_the_commands_examples_run(repository: Path) -> None:
    shown = validate("--help").output
    examples = [line.strip() for line in shown.splitlines() if line.strip().startswith("edgeferry validate")]
    assert len(examples) == 4
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    write(repository / "robotics", model("arm", "1.0.0"))
    snapshot = encode_snapshot("f", datetime(2026, 3, 1, tzinfo=UTC), {})
    (repository / "facts.json").write_text(json.dumps(snapshot))
    for example in examples:
        command = [str(Path(sys.executable).parent / "edgeferry"), *example.split()[1:]]
        subprocess.run(command, cwd=repository, check=True, capture_output=True)
