"""Trees → catalog: what it holds, what it costs, and what is wrong between documents and sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitops import kinds
from gitops.catalog import Cache, SourceDocuments, merge, read
from gitops.catalog_types import Catalog
from gitops.faults import FaultyCatalog
from gitops.names import fits
from gitops.policies import to_policies, to_subject, to_target, to_term, to_workload_subject
from placement.types import Needs, Policy, Requirement, Subject, Term
from tests.gitops.trees import API, Bytes, document, model, tree

DIGEST = "sha256:" + "a" * 64


def catalog_of(*parts: SourceDocuments, published: Mapping[str, str] | None = None) -> Catalog:
    return merge(parts, published or {})


def read_once(files: Mapping[str, str | bytes]) -> SourceDocuments:
    return read(tree(files), Cache())


def faults_of(*parts: SourceDocuments, published: Mapping[str, str] | None = None) -> list[str]:
    try:
        catalog_of(*parts, published=published)
    except FaultyCatalog as error:
        return [str(fault) for fault in error.faults]
    return []


def source(name: str, kinds_: str = "Model, ModelVersion", names: str = '"*"') -> dict[str, str]:
    spec = f"{{url: ../{name}, allow: {{kinds: [{kinds_}], names: [{names}]}}}}"
    return {f"sources/{name}.yaml": document("Source", name, spec)}


def version_of(name: str, version: str, path: str) -> str:
    metadata, spec = f"{{name: {name}, version: {version}}}", f"{{artifact: {{path: {path}}}}}"
    return f"{API}kind: ModelVersion\nmetadata: {metadata}\nspec: {spec}\n"


def admitted(main: SourceDocuments, name: str) -> kinds.Source:
    return main.sources()[name]


# ---- what a catalog holds


def test_a_folder_with_just_the_model_file_is_a_version() -> None:
    catalog = catalog_of(read_once(model("digits", "1.0.0", "1.1.0")))
    digits = catalog.models["digits"]
    assert list(digits.versions) == ["1.0.0", "1.1.0"]
    content = digits.versions["1.1.0"].content
    assert content is not None
    assert (content.source, content.root) == ("main", "models/digits/versions/1.1.0")
    assert [file.path for file in content.files] == ["models/digits/versions/1.1.0/digits.bin"]
    assert catalog.where["Model/digits"] == digits.where == "models/digits/model.yaml:1:1"


def test_an_artifact_path_may_be_a_file_or_a_folder() -> None:
    files = model("digits") | {
        "models/digits/versions/1.0.0/version.yaml": version_of("digits", "1.0.0", "weights/a.bin"),
        "models/digits/versions/1.0.0/weights/a.bin": "a",
        "models/digits/versions/1.0.0/weights/b.bin": "b",
        "models/digits/versions/2.0.0/version.yaml": version_of("digits", "2.0.0", "weights"),
        "models/digits/versions/2.0.0/weights/a.bin": "a",
        "models/digits/versions/2.0.0/README.md": "not packed",
    }
    versions = catalog_of(read_once(files)).models["digits"].versions
    contents = {name: one.content for name, one in versions.items()}
    assert contents["1.0.0"] is not None and contents["2.0.0"] is not None
    assert contents["1.0.0"].root == "models/digits/versions/1.0.0/weights"
    assert [file.path for file in contents["1.0.0"].files] == ["models/digits/versions/1.0.0/weights/a.bin"]
    assert [file.path for file in contents["2.0.0"].files] == ["models/digits/versions/2.0.0/weights/a.bin"]
    assert versions["1.0.0"].identity == versions["2.0.0"].identity, "the same bytes under the same names"


def test_an_identity_changes_with_the_bytes_and_not_with_the_place() -> None:
    def identity(files: Mapping[str, str | bytes]) -> str:
        return catalog_of(read_once(files)).models["digits"].versions["1.0.0"].identity

    plain = model("digits", "1.0.0")
    moved = {path.replace("models/digits/", "team/x/"): text for path, text in plain.items()}
    edited = plain | {"models/digits/versions/1.0.0/digits.bin": "other"}
    renamed = {path.replace("digits.bin", "other.bin"): text for path, text in plain.items()}
    described = plain | {"models/digits/versions/1.0.0/version.yaml": version_of("digits", "1.0.0", "digits.bin")}
    documented = plain | {"models/digits/model.yaml": document("Model", "digits", "{delivery: file}", "a: b")}
    assert identity(plain) == identity(moved) == identity(described) == identity(documented)
    assert len({identity(plain), identity(edited), identity(renamed)}) == 3


def test_a_version_in_a_registry_has_no_content() -> None:
    spec = f'{{artifact: {{ref: oci://r.example/digits, digest: "{DIGEST}", size: 5}}}}'
    text = f"{API}kind: ModelVersion\nmetadata: {{name: digits, version: 1.0.0}}\nspec: {spec}\n"
    version = catalog_of(read_once(model("digits") | {"all.yaml": text})).models["digits"].versions["1.0.0"]
    assert version.content is None and version.spec.artifact is not None and version.where == "all.yaml:1:1"


def test_a_workloads_folder_gives_manifests_and_content() -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
    files = {
        "workloads/w/workload.yaml": document("Workload", "w", "{host: {command: [x]}}"),
        "workloads/w/versions/1.0.0/deploy/app.yaml": manifest,
        "workloads/w/versions/1.0.0/config.yaml": "threshold: 1\n",
        "workloads/w/versions/1.0.0/main.py": "print()",
    }
    version = catalog_of(read_once(files)).workloads["w"].versions["1.0.0"]
    assert dict(version.manifests) == {"deploy/app.yaml": manifest.encode()}
    assert version.content is not None and len(version.content.files) == 3
    without_host = files | {"workloads/w/workload.yaml": document("Workload", "w")}
    assert catalog_of(read_once(without_host)).workloads["w"].versions["1.0.0"].content is None


def test_withdrawn_versions_carry_their_reason_and_self_tests_their_bytes() -> None:
    spec = "delivery: server, runtime: r, withdrawn: [{version: 1.0.0, reason: bad}]"
    spec += ", selfTest: {input: q.json, output: t/a.json}"
    files = model("digits", "1.0.0", "2.0.0", spec=spec) | {
        "models/digits/q.json": "{}",
        "models/digits/t/a.json": '{"a": 1}',
        "r.yaml": document("Runtime", "r", "{host: {command: [x]}}"),
    }
    digits = catalog_of(read_once(files)).models["digits"]
    assert {name: one.withdrawn for name, one in digits.versions.items()} == {"1.0.0": "bad", "2.0.0": ""}
    assert digits.files == {"q.json": b"{}", "t/a.json": b'{"a": 1}'}


def test_everything_is_sorted_by_name_whatever_the_order_of_files() -> None:
    files = {f"clusters/{n}.yaml": document("Cluster", name) for n, name in enumerate(["c", "a", "b"])}
    assert list(catalog_of(read_once(files)).clusters) == ["a", "b", "c"]


# ---- what a read costs


def fleet(size: int, line: str = "welding") -> dict[str, str]:
    return {f"clusters/c-{n:03}.yaml": document("Cluster", f"c-{n:03}", labels=f"line: {line}") for n in range(size)}


def test_a_second_read_reads_only_what_changed() -> None:
    blobs, cache = Bytes(), Cache()
    before = catalog_of(read(tree(fleet(50) | model("m", "1.0.0"), blobs=blobs), cache))
    blobs.read_paths.clear()
    changed = fleet(50) | model("m", "1.0.0") | {"clusters/c-007.yaml": document("Cluster", "c-007", labels="line: x")}
    after = catalog_of(read(tree(changed, revision="2", blobs=blobs), cache))
    assert blobs.read_paths == ["clusters/c-007.yaml"]
    assert [name for name in after.clusters if after.clusters[name] is not before.clusters[name]] == ["c-007"]
    assert after.models["m"].versions["1.0.0"] is before.models["m"].versions["1.0.0"]
    assert after.revisions == {"main": "2"}


def test_no_model_byte_is_read() -> None:
    blobs = Bytes()
    read(tree(model("m", "1.0.0", "2.0.0"), blobs=blobs), Cache())
    assert blobs.read_paths == ["models/m/model.yaml"]


EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "clusters/a.yaml",
                "clusters/b.yaml",
                "models/m/model.yaml",
                "models/m/versions/1.0.0/m.bin",
                "models/m/versions/2.0.0/m.bin",
                "models/m/versions/2.0.0/version.yaml",
                "models/m/q.json",
                "Clusters/A.yaml",
                "README.md",
            ]
        ),
        st.sampled_from(
            [
                "",
                document("Cluster", "a"),
                document("Cluster", "b", labels="x: y"),
                document("Model", "m", "{delivery: file}"),
                document("Model", "m", "{delivery: container, port: 1, selfTest: {input: q.json, output: q.json}}"),
                version_of("m", "2.0.0", "m.bin"),
                "{}",
                "not: [ours",
            ]
        ),
    ),
    max_size=12,
)


@given(EDITS)
@settings(deadline=None, max_examples=150)
def test_a_warm_read_equals_a_cold_one(edits: list[tuple[str, str]]) -> None:
    cache, files = Cache(), {"clusters/a.yaml": document("Cluster", "a")}
    for path, text in edits:
        files = {**files, path: text} if text else {one: data for one, data in files.items() if one != path}
        warm, cold = read(tree(files), cache), read_once(files)
        assert warm.faults == cold.faults
        assert warm.models == cold.models and warm.self_tests == cold.self_tests
        assert {kind: set(known) for kind, known in warm.by_kind.items() if known} == {
            kind: set(known) for kind, known in cold.by_kind.items() if known
        }
        assert faults_of(warm) == faults_of(cold)
        if not cold.faults and not faults_of(cold):
            assert catalog_of(warm) == catalog_of(cold)


CASES = Path(__file__).parents[1] / "cases" / "documents"
PIECES = sorted(
    (path.relative_to(given).as_posix(), path)
    for given in CASES.glob("*/given")
    for path in given.rglob("*")
    if path.is_file()
)


@given(st.lists(st.sampled_from(PIECES), max_size=25), st.lists(st.sampled_from(PIECES), max_size=5))
@settings(deadline=None, max_examples=100)
def test_any_mixture_of_bad_input_ends_in_a_catalog_or_in_faults(
    mine: list[tuple[str, Path]], others: list[tuple[str, Path]]
) -> None:
    main = read_once({path: file.read_bytes() for path, file in mine} | source("other", names='"d*", "*s"'))
    other = read(tree({path: file.read_bytes() for path, file in others}, "other"), Cache(), admitted(main, "other"))
    published = {"model/digits@1.0.0": DIGEST, "workload/w@1.0.0": DIGEST}
    for fault in faults_of(main, other, published=published):
        assert " EF1" in fault and fault.isprintable()


# ---- what is wrong between versions, sources and what was published


def test_a_version_changed_after_it_was_published_is_a_fault() -> None:
    before = catalog_of(read_once(model("digits", "1.0.0")))
    published = {"model/digits@1.0.0": before.models["digits"].versions["1.0.0"].identity}
    assert not faults_of(read_once(model("digits", "1.0.0", "1.1.0")), published=published)
    changed = model("digits", "1.0.0") | {"models/digits/versions/1.0.0/digits.bin": "other"}
    (fault,) = faults_of(read_once(changed), published=published)
    assert fault.startswith("models/digits/versions/1.0.0/: EF1023 ChangedAfterPublication: model digits 1.0.0")


def test_a_published_version_that_is_gone_is_no_fault() -> None:
    assert not faults_of(read_once(model("digits", "2.0.0")), published={"model/digits@1.0.0": DIGEST})


def test_a_changed_workload_version_is_a_fault() -> None:
    files = {
        "workloads/w/workload.yaml": document("Workload", "w", "{host: {command: [x]}}"),
        "workloads/w/versions/1.0.0/main.py": "print()",
    }
    assert "EF1023" in faults_of(read_once(files), published={"workload/w@1.0.0": DIGEST})[0]


def test_another_source_adds_its_documents() -> None:
    main = read_once(source("robotics") | fleet(1) | {"p.yaml": document("Placement", "p", "{model: arm}")})
    other = read(tree(model("arm", "1.0.0"), "robotics", "9"), Cache(), admitted(main, "robotics"))
    catalog = catalog_of(main, other)
    assert catalog.revisions == {"main": "1", "robotics": "9"}
    assert catalog.models["arm"].source == "robotics"
    content = catalog.models["arm"].versions["1.0.0"].content
    assert content is not None and content.source == "robotics"


def test_another_source_may_add_versions_to_a_model() -> None:
    main = read_once(source("robotics", "ModelVersion") | model("arm", "1.0.0"))
    files = {
        "models/arm/versions/2.0.0/version.yaml": version_of("arm", "2.0.0", "a"),
        "models/arm/versions/2.0.0/a": "a",
    }
    other = read(tree(files, "robotics"), Cache(), admitted(main, "robotics"))
    assert sorted(catalog_of(main, other).models["arm"].versions) == ["1.0.0", "2.0.0"]


def test_a_source_holds_only_what_it_is_allowed() -> None:
    main = read_once(source("robotics", "Model", '"robot-*"') | fleet(1))
    files = model("robot-arm", "1.0.0") | model("arm", "1.0.0") | {"c.yaml": document("Cluster", "x")}
    other = read(tree(files, "robotics"), Cache(), admitted(main, "robotics"))
    assert [str(fault) for fault in other.faults] == [
        "robotics: c.yaml:2:7: EF1024 NotAllowedForSource: source robotics may not hold a Cluster; "
        "its Source allows Model",
        "robotics: models/arm/model.yaml:3:18: EF1024 NotAllowedForSource: source robotics may not use the name arm; "
        "its Source allows robot-*",
    ]


def test_two_sources_may_not_declare_the_same() -> None:
    main = read_once(source("robotics") | model("arm", "1.0.0"))
    other = read(tree(model("arm", "1.0.0"), "robotics"), Cache(), admitted(main, "robotics"))
    found = faults_of(main, other)
    assert len(found) == 2 and all(fault.startswith("robotics: ") and "EF1020" in fault for fault in found)


def test_a_source_that_lost_everything_is_a_fault() -> None:
    cache = Cache()
    assert not read(tree(fleet(1)), cache).faults
    assert [fault.code for fault in read(tree({"README.md": "x"}, revision="2"), cache).faults] == ["EF1025"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("clusters/a.yaml", "clusters/A.yaml"), ("clusters/a.yaml", "Clusters/b.yaml"), ("x/README.md", "x/readme.md")],
)
def test_names_that_differ_only_in_case_are_a_fault(one: str, other: str) -> None:
    found = read_once({one: document("Cluster", "a"), other: document("Cluster", "b"), **fleet(1)}).faults
    assert [fault.code for fault in found] == ["EF1026"]


def test_every_fault_of_every_source_is_told_at_once() -> None:
    main = read_once(
        source("robotics") | {"clusters/a.yaml": "a: [", "p.yaml": document("Placement", "p", "{model: x}")}
    )
    other = read(tree({"models/m/model.yaml": "b: ["}, "robotics"), Cache(), admitted(main, "robotics"))
    with pytest.raises(FaultyCatalog) as caught:
        merge([main, other], {})
    assert {(fault.source, fault.code) for fault in caught.value.faults} == {
        ("main", "EF1002"),
        ("main", "EF1021"),
        ("robotics", "EF1002"),
    }
    assert str(caught.value).startswith("EF1001 FaultyCatalog: 3 faults")


# ---- documents → placement's values


def test_documents_become_placements_values() -> None:
    files = model(
        "digits", "1.0.0", "2.0.0", spec="delivery: file, needs: {arch: [arm64]}, channels: {stable: 1.0.0}"
    ) | {
        "p.yaml": document(
            "Placement",
            "p",
            "{model: digits, version: 'channel: stable', count: 3, priority: 7, clusters: [{names: [a, b]}, "
            "{matchLabels: {y: z, x: y}, matchExpressions: [{key: k, operator: NotIn, values: [v]}]}], overrides: []}",
        ),
        "workloads/w/workload.yaml": document("Workload", "w", "{host: {command: [x]}}"),
        "workloads/w/versions/1.0.0/x": "x",
        "clusters/a.yaml": document("Cluster", "a", labels="x: y"),
    }
    catalog = catalog_of(read_once(files))
    labels = (Requirement("x", "In", ("y",)), Requirement("y", "In", ("z",)), Requirement("k", "NotIn", ("v",)))
    terms = (Term(frozenset({"a", "b"})), Term(None, labels))
    assert to_policies(catalog.placements["p"], catalog) == [
        Policy("p", "model", "digits", "channel: stable", terms, 3, 7)
    ]
    assert to_term(kinds.Override(match_labels={"a": "b"}, values={"c": "d"})) == Term(
        None, (Requirement("a", "In", ("b",)),)
    )
    assert to_subject(catalog.models["digits"]) == Subject(
        "model", "digits", {"1.0.0": "", "2.0.0": ""}, {"stable": "1.0.0"}, Needs(arch=frozenset({"arm64"})), {}, "file"
    )
    assert to_workload_subject(catalog.workloads["w"]).versions == {"1.0.0": ""}
    assert to_target(catalog.clusters["a"], {}).labels == {"x": "y"}


def test_no_clusters_is_every_cluster_and_an_empty_list_is_none() -> None:
    def terms(clusters: str) -> tuple[Term, ...] | None:
        files = model("m", "1.0.0") | {"p.yaml": document("Placement", "p", f"{{model: m{clusters}}}")}
        catalog = catalog_of(read_once(files))
        return to_policies(catalog.placements["p"], catalog)[0].terms

    assert terms("") is None
    assert terms(", clusters: []") == ()


@pytest.mark.parametrize(
    ("glob", "name", "is_so"),
    [
        ("*", "a", True),
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*-arm", "robot-arm", True),
        ("r*t-a*m", "robot-arm", True),
        ("ab*ba", "aba", False),
        ("a", "ab", False),
        ("*a" * 26, "a" * 53, True),
        ("*a" * 26 + "b", "a" * 53, False),
    ],
)
def test_a_glob_fits(glob: str, name: str, is_so: bool) -> None:
    assert fits(glob, name) is is_so


def test_a_thousand_dangling_references_in_one_file_are_told() -> None:
    text = "---\n".join(document("Placement", f"p{n}", "{model: nothing}") for n in range(999))
    found = faults_of(read_once({"placements/all.yaml": text, **fleet(1)}))
    assert len(found) == 999
    assert found[-1].startswith("placements/all.yaml:4994:15: EF1021")
