"""Charts as they lie staged at a site, and the real Helm."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from agent.actions import Staged
from agent.wire.canonical import canonical
from agent.wire.release import Artifact, Entry, Kind, with_digest

CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-settings
data:
  threshold: {{ .Values.threshold | quote }}
  text: TEXT
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}
spec:
  selector: {app: reader}
  ports: [{name: http, port: {{ .Values.service.port }}}]
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: reader}}
  template:
    metadata: {labels: {app: reader}}
    spec:
      containers: [{name: reader, image: "registry.example/reader:{{ .Chart.Version }}"}]
"""
SCHEMA = '{"type": "object", "properties": {"replicas": {"type": "integer"}}}'
VALUES = "threshold: '0.5'\nreplicas: 1\nservice: {port: 8080}\n"


def files(version: str, **more: str) -> dict[str, str]:
    """Return path → text of a chart with a ConfigMap, a Service and a Deployment; an empty text leaves one out."""
    found = {
        "Chart.yaml": f"apiVersion: v2\nname: reader\nversion: {version}\n",
        "values.yaml": VALUES,
        "values.schema.json": SCHEMA,
        "templates/config.yaml": CONFIG.replace("TEXT", version),
        "templates/service.yaml": SERVICE,
        "templates/deployment.yaml": DEPLOYMENT,
        **{f"templates/{name}.yaml": text for name, text in more.items()},
    }
    return {path: text for path, text in found.items() if text}


def staged_chart(
    place: Path,
    namespace: str,
    version: str = "1.0.0",
    values: Mapping[str, str] | None = None,
    name: str = "reader",
    kind: Kind = "model",
    model: bytes = b"",
    **more: str,
) -> Staged:
    """Lay a chart (and a model) out below ``place`` as the agent's content store would, and return its entry."""
    made = files(version, **more)
    digest = "sha256:" + hashlib.sha256(canonical(made)).hexdigest()
    chart = place / digest[7:]
    for path, text in made.items():
        (chart / "reader" / path).parent.mkdir(parents=True, exist_ok=True)
        (chart / "reader" / path).write_text(text)
    artifacts = [Artifact(digest, 1, "application/vnd.oci.image.manifest.v1+json", "hub://charts/reader")]
    content = None
    if model:
        artifacts.append(Artifact("sha256:" + hashlib.sha256(model).hexdigest(), 1, "", "hub://models/reader"))
        content = place / artifacts[1].digest[7:]
        content.mkdir(exist_ok=True)
        (content / "model.onnx").write_bytes(model)
    entry = Entry(
        kind,
        name,
        version,
        "chart",
        namespace=namespace,
        artifacts=tuple(artifacts),
        requires=("chart",),
        values=values or {},
        release=name,
    )
    file = None if content is None else content / "model.onnx"
    return Staged(with_digest(entry, {}), {}, content, file, chart=chart)
