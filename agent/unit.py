"""The agent as a service of systemd."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

from agent import durable
from agent.wire.errors import Stop

NAME: Final = "edgeferry-agent.service"
DIRECTORY: Final = Path("/etc/systemd/system")
_RUNNING: Final = Path("/run/systemd/system")
_TIMEOUT_S: Final = 60.0


class NoSystemd(Stop):
    """This machine is not run by systemd, or systemd refuses."""

    code = "EF4430"


def unit(program: Path, state: Path) -> str:
    """Return the unit file.

    ``KillMode=process``: what the agent started outlives it. It waits for no network: a site that is cut off starts
    from its disk.

    Args:
        program: ``edgeferry-agent``, absolute.
        state: the state directory, absolute.
    """
    command = shlex.join([str(program), "run", "--state", str(state)]).replace("%", "%%")
    return f"""[Unit]
Description=Edgeferry agent: models from Git to this site
Documentation=man:systemd.service(5)
After=network.target local-fs.target time-sync.target
RequiresMountsFor={str(state).replace("%", "%%")}

[Service]
ExecStart={command}
Restart=always
RestartSec=5
KillMode=process
UMask=0077
NoNewPrivileges=yes
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


def install(program: Path, state: Path, directory: Path, *, start: bool) -> Path:
    """Write the unit and have systemd run it from now on and after every boot. Done twice, it is done once.

    Args:
        program: ``edgeferry-agent``.
        state: the state directory.
        directory: where units stand.
        start: tell systemd; else only the file is written.

    Returns:
        The unit file.

    Raises:
        NoSystemd: see there.
    """
    if start and not _RUNNING.is_dir():
        do = "see the unit with --print, and start `edgeferry-agent run` by what this machine has"
        raise NoSystemd("this machine is not run by systemd", do=do)
    path = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        durable.write(path, unit(program, state).encode(), 0o644)
    except OSError as error:
        raise NoSystemd(error.strerror or str(error), where=str(path), do="run it as root") from None
    if start:
        _systemctl("daemon-reload")
        _systemctl("enable", NAME)
        _systemctl("restart", NAME)
    return path


def uninstall(directory: Path = DIRECTORY) -> bool:
    """Stop the service and remove the unit, where it is ours to remove; what the agent started goes on."""
    path = directory / NAME
    if not path.exists() or not os.access(directory, os.W_OK):
        return False
    if _RUNNING.is_dir():
        _systemctl("disable", "--now", NAME)
    path.unlink()
    return True


def _systemctl(*arguments: str) -> None:
    program = shutil.which("systemctl")
    if program is None:
        raise NoSystemd("there is no systemctl", do="install systemd, or write the unit with --no-start")
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoSystemd(str(error), where="systemctl", do="look at `systemctl status`") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoSystemd(said[-1] if said else f"ended with {done.returncode}", where=f"systemctl {' '.join(arguments)}")
