"""The documents that the scenarios write, as a person would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

DIGITS: Final = Path(__file__).parent / "digits"


def document(kind: str, name: str, spec: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> str:
    """Return one document of ours as YAML (in its JSON form, which YAML reads)."""
    metadata = {"name": name, "labels": dict(labels or {})}
    whole = {"apiVersion": "edgeferry.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}
    return json.dumps(whole, indent=2) + "\n"


def cluster(name: str, **labels: str) -> dict[str, str]:
    """Return the files of one cluster."""
    return {f"clusters/{name}.yaml": document("Cluster", name, {}, labels)}


def placement(name: str, **spec: Any) -> dict[str, str]:
    """Return the files of one placement; ``clusters`` and the rest are its spec."""
    return {f"placements/{name}.yaml": document("Placement", name, spec)}


def model(name: str, delivery: str = "server", **spec: Any) -> dict[str, str]:
    """Return model.yaml of a model without a self-test."""
    wanted: dict[str, Any] = {"delivery": delivery, **spec}
    if delivery == "server":
        wanted.setdefault("runtime", "onnx")
    return {f"models/{name}/model.yaml": document("Model", name, wanted, {"task": "reading"})}


def runtime(image: str) -> str:
    """Return the document of the example runtime, for hosts and for pods."""
    arguments = ["--port", "{port}", "--model", "{model}", "--name", "{name}"]
    spec = {"image": image, "args": arguments, "host": {"command": ["edgeferry-onnx-runtime", *arguments]}}
    return document("Runtime", "onnx", spec)


def version(name: str, number: str, like: str = "") -> dict[str, str | bytes]:
    """Return the files of one version: just the model file. ``like`` names the digits version whose bytes it has."""
    data = (DIGITS / f"digits-{like or number}.onnx").read_bytes()
    return {f"models/{name}/versions/{number}/{name}.onnx": data}


def workload(name: str, number: str, program: str, image: str = "", **spec: Any) -> dict[str, str]:
    """Return the files of a workload that is one Python program; ``image``, with a Python in it, runs it in pods."""
    wanted = {
        "host": {"command": ["python3", "{workload}/main.py", "{port}"], "port": True, "readyPath": "/ready"},
        **spec,
    }
    document_ = {f"workloads/{name}/workload.yaml": document("Workload", name, wanted)}
    return document_ | workload_version(name, number, program, image)


def workload_version(name: str, number: str, program: str, image: str = "") -> dict[str, str]:
    """Return the files of one version of such a workload."""
    folder = f"workloads/{name}/versions/{number}"
    files = {f"{folder}/main.py": program}
    if image:
        files[f"{folder}/pods.yaml"] = "\n---\n".join(map(json.dumps, _pods(name, program, image)))
    return files


def _pods(name: str, program: str, image: str) -> list[dict[str, Any]]:
    labels = {"app": name}
    # Named by what it holds, as Kustomize names them: another program is another pod.
    holder = f"{name}-{hashlib.sha256(program.encode()).hexdigest()[:8]}"
    container = {
        "name": name,
        "image": image,
        "command": ["python3.11", "/program/main.py", "8080", "0.0.0.0"],  # noqa: S104  # a pod's network is its own
        "env": [{"name": "WEIGHTS_PATH", "value": "/models/weights/current"}],
        "envFrom": [{"configMapRef": {"name": "edgeferry-models"}}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "program", "mountPath": "/program"}],
    }
    volume = {"name": "program", "configMap": {"name": holder}}
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [volume]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": holder}, "data": {"main.py": program}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 8080}]},
        },
    ]


READER: Final = """
import hashlib, json, os, sys, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Reader(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path = os.environ.get("WEIGHTS_PATH", "")
        told = {"version": VERSION, "pid": os.getpid()}
        if os.path.exists(path):
            with open(path, "rb") as file:
                told["weights"] = hashlib.sha256(file.read()).hexdigest()
        self.answer(told)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with urllib.request.urlopen(os.environ["DIGITS_URL"] + "/v2/models/digits/infer", body, timeout=5) as response:
            label = json.load(response)["outputs"][0]["data"][0]
        self.answer({"digit": label, "version": VERSION, "pid": os.getpid()})
    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass

ThreadingHTTPServer(("".join(sys.argv[2:]) or "127.0.0.1", int(sys.argv[1])), Reader).serve_forever()
"""
"""A workload: GET tells its version and process (and the digest of its weights), POST asks the model behind it."""


def reader(number: str) -> str:
    """Return the reader's program at one version."""
    return f'VERSION = "{number}"\n{READER}'
