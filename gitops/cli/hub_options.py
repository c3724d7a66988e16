"""Options of every command that asks a running hub."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from gitops.hub_client import HubClient, NoOperatorToken
from gitops.logins import newest_login, read_logins
from gitops.state_dir import StateDir

LOCAL_HUB: Final = "http://127.0.0.1:8460"


def hub_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--hub``, ``--ca``, ``--state`` and ``--token-file`` to a command; they arrive together, as ``hub``."""

    @click.option(
        "--hub",
        "url",
        default="",
        envvar="EDGEFERRY_HUB",
        metavar="URL",
        help="Address of the hub.  [default: where `edgeferry login` signed in; else http://127.0.0.1:8460]",
    )
    @click.option(
        "--ca",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="EDGEFERRY_HUB_CA",
        help="Authorities that the hub's certificate is checked against, PEM.",
    )
    @click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default="hub-state",
        show_default=True,
        envvar="EDGEFERRY_HUB_STATE",
        help="State directory of the hub, for the operator token in it.",
    )
    @click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with the operator token, on another machine than the hub's; or set EDGEFERRY_OPERATOR_TOKEN.",
    )
    @functools.wraps(command)
    def with_hub(url: str, ca: Path | None, state: Path, token_file: Path | None, **others: Any) -> Any:
        signed_in = read_logins().get(url.rstrip("/")) if url else newest_login()
        if signed_in is not None and token_file is None and "EDGEFERRY_OPERATOR_TOKEN" not in os.environ:
            known = None if not signed_in.ca else Path(signed_in.ca)
            return command(hub=HubClient(signed_in.url, signed_in.token, ca or known), **others)
        return command(hub=HubClient(url or LOCAL_HUB, _token(state, token_file), ca), **others)

    return with_hub


def _token(state: Path, token_file: Path | None) -> str:
    given = os.environ.get("EDGEFERRY_OPERATOR_TOKEN", "")
    if token_file is None and given:
        return given
    path = StateDir(state).operator_token if token_file is None else token_file
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise NoOperatorToken(
            f"the operator token cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            do="sign in with `edgeferry login URL`, or name the hub's directory with --state",
        ) from None
