"""Types of the fields that people write: what a name, a label or a version may be, and how strict a mapping is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, WithJsonSchema

from gitops import names as syntax

_NAME: Final = r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$"
_GLOB: Final = r"^[a-z0-9*]([-a-z0-9*]{0,51}[a-z0-9*])?$"
_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
_IMAGE: Final = r"^[^\s@]+@sha256:[0-9a-f]{64}$"
_REF: Final = r"^(hub|oci|https|file)://[^\s]+$"
_IMAGE_NAME: Final = r"^[^\s@]+$"
_CHART: Final = r"^oci://[^\s@]+$"
_ABSOLUTE: Final = r"^(/\S+)?$"
_URL_PATH: Final = r"^(/\S*)?$"
_VALUE_KEY: Final = r"^[A-Za-z_][-A-Za-z0-9_.]{0,252}$"

PATTERNS: Final = {
    _NAME: "at most 53 of a-z 0-9 - that begin and end with a letter or digit",
    _GLOB: "a name, in which `*` stands for any run of characters",
    _DIGEST: "`sha256:` and 64 digits of 0-9 a-f",
    _IMAGE: "an image with its digest: registry.example/name@sha256:…",
    _REF: "a URL that begins with hub://, oci://, https:// or file://",
    _IMAGE_NAME: "an image without its digest: registry.example/name:tag",
    _CHART: "a chart without its digest: oci://registry.example/name",
    _ABSOLUTE: "an absolute path: /models/name",
    _URL_PATH: "the path of a URL: /ready",
    _VALUE_KEY: "letters, digits and - _ . that begin with a letter or _",
}
"""Pattern → what it wants, in words."""


def _schema(form: str, pattern: str = "") -> WithJsonSchema:
    """Say in the JSON Schema what the text is; ``format`` is for people, validators know none of these."""
    return WithJsonSchema({"type": "string", "format": form, **({"pattern": pattern} if pattern else {})})


Name = Annotated[str, StringConstraints(pattern=_NAME), _schema("name", _NAME)]
NameGlob = Annotated[str, StringConstraints(pattern=_GLOB), _schema("name with *", _GLOB)]
Digest = Annotated[str, StringConstraints(pattern=_DIGEST), _schema("sha256 digest", _DIGEST)]
LabelKey = Annotated[str, AfterValidator(syntax.label_key), _schema("label key")]
LabelValue = Annotated[str, AfterValidator(syntax.label_value), _schema("label value")]
Version = Annotated[str, AfterValidator(syntax.version_number), _schema("version")]
VersionWish = Annotated[str, AfterValidator(syntax.version_wish), _schema("version, range or channel")]
Labels = dict[LabelKey, LabelValue]
ValueKey = Annotated[str, StringConstraints(pattern=_VALUE_KEY)]
Values = dict[ValueKey, str]
ArtifactRef = Annotated[str, StringConstraints(pattern=_REF), _schema("hub, oci, https or file URL", _REF)]
ImageName = Annotated[str, StringConstraints(pattern=_IMAGE_NAME), _schema("image", _IMAGE_NAME)]
ImageRef = Annotated[str, StringConstraints(pattern=_IMAGE), _schema("image with digest", _IMAGE)]
ChartName = Annotated[str, StringConstraints(pattern=_CHART), _schema("oci URL", _CHART)]
AbsolutePath = Annotated[str, StringConstraints(pattern=_ABSOLUTE), _schema("absolute path", _ABSOLUTE)]
UrlPath = Annotated[str, StringConstraints(pattern=_URL_PATH), _schema("path of a URL", _URL_PATH)]
RelativePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    AfterValidator(syntax.relative_path),
    _schema("relative path"),
]
Branch = Annotated[str, AfterValidator(syntax.branch), _schema("branch")]
RepositoryUrl = Annotated[str, AfterValidator(syntax.repository_url), _schema("Git URL")]
PublicKey = Annotated[str, AfterValidator(syntax.public_key), _schema("ed25519 public key")]


class Spec(BaseModel):
    """Strict and frozen; names in YAML are camelCase."""

    later: ClassVar[tuple[str, ...]] = ()
    """Fields that the design names and this version does not act on yet."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        alias_generator=lambda s: s.split("_")[0] + "".join(w.title() for w in s.split("_")[1:]),
        populate_by_name=True,
    )
