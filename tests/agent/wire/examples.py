"""One value of every format, with every field set."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.wire.facts import Fact
from agent.wire.release import Artifact, Entry, ModelUse, Release, Runtime, SelfTest, with_digest
from agent.wire.report import EntryReport, Event, Report
from agent.wire.trust import Trust

AT = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
IMAGE = "registry.example/runtimes/onnx@sha256:" + "2" * 64

MODEL = with_digest(
    Entry(
        kind="model",
        name="defect-detector",
        version="2.1.0",
        delivery="server",
        placement="defect-detector-eu",
        namespace="edgeferry-models",
        artifacts=(
            Artifact(
                "sha256:" + "1" * 64,
                45441912,
                "application/vnd.oci.image.manifest.v1+json",
                "hub://models/defect-detector",
            ),
        ),
        runtime=Runtime("onnx", IMAGE, 8080, "v2", "", ("serve", "--port", "{port}", "--model", "{model}")),
        values={"threshold": "0.6"},
        self_test=SelfTest(
            "models/defect-detector/selftest/input.json", "models/defect-detector/selftest/output.json", "0.0001"
        ),
    ),
    {"models/defect-detector/deployment.yaml": b"kind: Deployment\n"},
)
WORKLOAD = with_digest(
    Entry(
        kind="workload",
        name="line-inspector",
        version="1.4.0",
        delivery="manifests",
        placement="defect-detector-eu",
        requires=("something-new",),
        runtime=Runtime("", command=("python3", "{workload}/inspect.py")),
        models=(ModelUse("defect-detector", ">=2 <3", "/models/defect-detector", "reload"),),
    ),
    {},
)
CHART = with_digest(
    Entry(
        kind="model",
        name="reader",
        version="1.0.0",
        delivery="chart",
        placement="readers",
        artifacts=(
            Artifact("sha256:" + "6" * 64, 4096, "application/vnd.oci.image.manifest.v1+json", "hub://charts/reader"),
            Artifact("sha256:" + "7" * 64, 8192, "application/vnd.oci.image.manifest.v1+json", "hub://models/reader"),
        ),
        requires=("chart",),
        values={"replicas": "2", "service.port": "9090"},
        release="reader",
    ),
    {},
)
RELEASE = Release(
    fleet="f-1",
    cluster="milan-01",
    cluster_key="SHA256:abc",
    sequence=7,
    published_at=AT,
    source_revision={"main": "0" * 40},
    trust=1,
    entries=(MODEL, WORKLOAD),
    files={"kustomization.yaml": "sha256:" + "3" * 64},
)
REPORT = Report(
    fleet="f-1",
    cluster="milan-01",
    incarnation="0123456789abcdef",
    number=12,
    sent_at=AT,
    sequence=7,
    content="sha256:" + "4" * 64,
    trust=1,
    agent="0.1.0",
    reads=("1",),
    fault_code="EF2004",
    fault="the newest release is not in force",
    ignored=2,
    entries=(
        EntryReport(
            "model",
            "defect-detector",
            "2.1.0",
            MODEL.digest,
            MODEL.digest,
            "current",
            AT,
            "",
            "",
            "http://127.0.0.1:18000",
            45441912,
            45441912,
        ),
        EntryReport("workload", "line-inspector", "", "", WORKLOAD.digest, "degraded", None, "EF4100", "it exited"),
    ),
    facts=(Fact("arch", "amd64", AT),),
    events=(Event(3, AT, "switched", "model/defect-detector", "2.1.0", "", "serves", 1),),
    source_revision={"main": "0" * 40},
    artifacts=("sha256:" + "1" * 64,),
)
CHARTS = Release("f-1", "milan-01", 8, AT, 1, (CHART,), {})
TRUST = Trust("f-1", 1, (KEY,), (KEY,), (KEY,))
