"""The pinned Helm, built from the Go module that the test clusters use; it names every dependency's hash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from images.debian import CannotBuild
from images.recipes import Architecture
from tests.cluster import binary


def helm_binary(architecture: Architecture, say: Callable[[str], None]) -> Path:
    """Return ``helm`` for an architecture, building it where it is not kept yet.

    Raises:
        CannotBuild: no Go, or its build failed.
    """
    try:
        return binary.build(say, binary.helm(architecture))
    except binary.Unavailable as reason:
        raise CannotBuild(str(reason)) from None
