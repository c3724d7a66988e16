"""A layout → a registry: blobs that it lacks, then manifests, then the name.

Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

from images import layout
from images.debian import CannotBuild

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Registry:
    """Where to push.

    Attributes:
        url: ``http://HOST:PORT[/PREFIX]`` or ``https://…``; the prefix begins every repository's name.
        authorization: value of that header; empty for none.
    """

    url: str
    authorization: str = ""

    @property
    def host(self) -> str:
        """Host with port."""
        return urlsplit(self.url).netloc

    def repository(self, name: str) -> str:
        """Return the name of a repository below the prefix."""
        return "/".join(filter(None, (urlsplit(self.url).path.strip("/"), name)))


def push(out: Path, name: str, registry: Registry, tag: str) -> str:
    """Push an image of a layout, all its architectures, and return ``HOST/REPOSITORY@sha256:…``.

    Raises:
        CannotBuild: no such image in the layout, or the registry does not take it.
    """
    found = [one for one in layout.named(out) if one["annotations"][layout.NAME] == name]
    if not found:
        raise CannotBuild(f"no image {name} in {out}: run `python -m images build --out {out}`")
    repository = registry.repository(name)
    index = found[0]["digest"]
    with _Line(registry, repository) as line:
        for image in json.loads(layout.blob(out, index).read_bytes())["manifests"]:
            manifest = json.loads(layout.blob(out, image["digest"]).read_bytes())
            for one in (manifest["config"], *manifest["layers"]):
                line.put_blob(out, one["digest"], one["size"])
            line.put_manifest(out, image["digest"], image["digest"], layout.MANIFEST)
        line.put_manifest(out, index, tag, layout.INDEX)
    return f"{registry.host}/{repository}@{index}"


class _Line:
    """One connection, for one repository."""

    def __init__(self, registry: Registry, repository: str) -> None:
        parts = urlsplit(registry.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CannotBuild(f"{registry.url!r} is no registry: write http://HOST:PORT or https://HOST")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=60)
        self._base = f"/v2/{repository}"
        self._headers = {"Authorization": registry.authorization} if registry.authorization else {}

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def put_blob(self, out: Path, digest: str, size_bytes: int) -> None:
        """Have a blob in the repository."""
        if self._ask("HEAD", f"{self._base}/blobs/{digest}")[0] == 200:
            return
        status, location = self._ask("POST", f"{self._base}/blobs/uploads/")
        if status != 202:
            raise CannotBuild(f"the registry lets nothing be pushed to {self._base[4:]}: status {status}")
        parts = urlsplit(location)
        query = "&".join(filter(None, (parts.query, urlencode({"digest": digest}))))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        with layout.blob(out, digest).open("rb") as file:
            status, _ = self._ask("PUT", f"{parts.path}?{query}", file, headers)
        if status != 201:
            raise CannotBuild(f"the registry did not take {digest}: status {status}")

    def put_manifest(self, out: Path, digest: str, name: str, media_type: str) -> None:
        """Have a manifest in the repository, under a digest or a tag."""
        data = layout.blob(out, digest).read_bytes()
        status, _ = self._ask("PUT", f"{self._base}/manifests/{name}", data, {"Content-Type": media_type})
        if status != 201:
            raise CannotBuild(f"the registry did not take the manifest {name}: status {status}")

    def _ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        try:
            self._connection.request(method, path, body, {**self._headers, **(headers or {})})  # type: ignore[arg-type]  # a file is fine
            answer = self._connection.getresponse()
            answer.read()
        except OSError as error:
            raise CannotBuild(f"{self._connection.host}:{self._connection.port} does not answer: {error}") from None
        return answer.status, answer.headers.get("Location", "")
