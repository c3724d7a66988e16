"""Where a person signed in: hubs and tokens in one file, readable by that person alone."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.wire.errors import Stop
from gitops.keys import write_over


class BadLogins(Stop):
    """The file with a person's logins is damaged."""

    code = "EF3161"


@dataclass(frozen=True, slots=True)
class Login:
    """One hub.

    Attributes:
        url: of the hub.
        token: a person's.
        ca: file with the authorities that its certificate is checked against; empty for the system's.
    """

    url: str
    token: str
    ca: str = ""


def logins_path() -> Path:
    """Return where logins are kept: ``edgeferry/logins.json`` of the user's configuration."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home, "edgeferry", "logins.json")


def read_logins() -> dict[str, Login]:
    """Return URL → login, the newest last.

    Raises:
        BadLogins: the file is no such file.
    """
    path = logins_path()
    try:
        found = [Login(**one) for one in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise BadLogins(f"unreadable: {error}", where=str(path), do="remove it, and sign in again") from None
    return {one.url: one for one in found}


def newest_login() -> Login | None:
    """Return where the person signed in last; None for nowhere."""
    return next(reversed(read_logins().values()), None)


def keep_login(login: Login) -> None:
    """Keep a login, in place of an older one to the same hub."""
    _write([one for one in read_logins().values() if one.url != login.url] + [login])


def drop_login(url: str) -> bool:
    """Forget a login; return whether there was one."""
    known = read_logins()
    if known.pop(url, None) is None:
        return False
    _write(list(known.values()))
    return True


def _write(logins: list[Login]) -> None:
    path = logins_path()
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    write_over(path, json.dumps([asdict(one) for one in logins], indent=2).encode())
