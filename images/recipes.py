"""What each image holds and how it starts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Architecture = Literal["amd64", "arm64"]

USER: Final = 65532
"""Number of the user, and of its group, that every image runs as; any other works as well."""

STATE: Final = "var/lib/edgeferry"
"""Directory of the user in every image: a volume belongs there."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image.

    Attributes:
        name: also the last part of its repository.
        title: one line for people.
        debian: Debian packages; what they depend on comes with them.
        extras: of setup.cfg, whose wheels it holds; ``""`` stands for what is always needed.
        wheels: further distributions, by name.
        without: distributions that are depended on and never imported here.
        packages: our own import packages in it.
        scripts: name in ``/usr/local/bin`` → ``module:function``, or the path of a script in the checkout.
        helm: does it carry the pinned Helm?
        entrypoint, command: what runs, and its default arguments.
    """

    name: str
    title: str
    debian: tuple[str, ...]
    extras: tuple[str, ...]
    wheels: tuple[str, ...]
    without: frozenset[str]
    packages: tuple[str, ...]
    scripts: tuple[tuple[str, str], ...]
    helm: bool
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]


_PYTHON: Final = ("base-files", "ca-certificates", "libpython3.11-stdlib", "python3.11-minimal", "tzdata")
_GIT: Final = ("dash", "git", "openssh-client")

RECIPES: Final = {
    one.name: one
    for one in (
        Recipe(
            name="agent",
            title="Edgeferry agent: one edge cluster",
            debian=(*_PYTHON, *_GIT),
            extras=("", "agent"),
            wheels=(),
            # The asynchronous half of the Kubernetes client, which is taken out too, imports these.
            without=frozenset(
                {
                    "aiohappyeyeballs",
                    "aiohttp",
                    "aiohttp-retry",
                    "aiosignal",
                    "attrs",
                    "frozenlist",
                    "multidict",
                    "propcache",
                    "yarl",
                }
            ),
            packages=("agent", "placement"),
            scripts=(("edgeferry-agent", "agent.cli:main"),),
            helm=True,
            entrypoint=("edgeferry-agent",),
            command=("run",),
        ),
        Recipe(
            name="hub",
            title="Edgeferry hub: decides, publishes, serves the agents",
            debian=(*_PYTHON, *_GIT),
            extras=("", "hub"),
            wheels=(),
            without=frozenset(),
            packages=("gitops", "placement", "agent"),
            scripts=(("edgeferry", "gitops.cli.main:main"),),
            helm=False,
            entrypoint=("edgeferry",),
            command=("--help",),
        ),
        Recipe(
            name="runtime",
            title="Example runtime: ONNX models over V2 inference",
            debian=("libstdc++6", *_PYTHON),
            extras=(),
            wheels=("numpy", "onnxruntime"),
            # Tools of onnxruntime import these; running a model does not.
            without=frozenset({"coloredlogs", "flatbuffers", "humanfriendly", "mpmath", "protobuf", "sympy"}),
            packages=(),
            scripts=(("edgeferry-onnx-runtime", "examples/runtime/edgeferry-onnx-runtime"),),
            helm=False,
            entrypoint=("edgeferry-onnx-runtime", "--host", "0.0.0.0"),  # noqa: S104 - a pod's network is its own
            command=("--help",),
        ),
    )
}

NOT_NEEDED: Final = frozenset(
    {
        "adduser", "debconf", "dpkg", "gcc-12-base", "git-man", "libacl1", "libattr1", "libaudit-common", "libaudit1",
        "libbz2-dev", "libcap-ng0", "libdb5.3", "liberror-perl", "libgdbm-compat4", "libgdbm6", "libmd0",
        "libpam-modules", "libpam-modules-bin", "libpam0g", "libperl5.36", "libsemanage-common", "libsemanage2",
        "libsepol2", "mawk", "media-types", "openssl", "passwd", "perl", "perl-base", "perl-modules-5.36",
        "readline-common", "tar",
    }
)  # fmt: skip
"""Debian packages that only maintainer scripts, or git's Perl programs, need: nothing in an image runs those."""

PRUNED: Final = (
    "etc/apt", "etc/cron.daily", "etc/init.d", "etc/kernel", "etc/logrotate.d", "usr/lib/git-core/git-gui*",
    "usr/lib/python3.11/ensurepip", "usr/lib/python3.11/idlelib", "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data", "usr/lib/python3.11/test", "usr/lib/python3.11/turtledemo",
    "usr/share/bash-completion",
    "usr/share/bug", "usr/share/doc-base", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man",
    "usr/share/menu", "usr/share/pixmaps", "usr/share/applications", "usr/share/binfmts", "usr/share/base-files",
    "usr/lib/*/gconv", "usr/share/git-core/contrib", "usr/share/gitweb", "usr/share/perl5", "usr/share/zoneinfo/right",
    "usr/lib/udev",
)  # fmt: skip
"""Globs of what is taken out of Debian's packages; every package's copyright stays."""

MACHINES: Final[dict[Architecture, str]] = {"amd64": "x86_64", "arm64": "aarch64"}
"""Architecture → as the kernel, and Python's wheels, call it."""
