"""A real PostgreSQL in a temporary directory: started for a test process, by an unprivileged user, and gone with it."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_databases = itertools.count(1)


class Missing(Exception):
    """PostgreSQL, or what it needs of the machine, is not here; the text says what to install."""


class Server:
    """A running server, reached by its socket alone."""

    def __init__(self, folder: Path, user: str, process: subprocess.Popen[bytes], start: Any) -> None:
        self.folder, self.user, self.process, self._start = folder, user, process, start

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}@/{database}?host={self.folder}"

    def fresh(self) -> str:
        """Return the URL of an empty database."""
        name = f"db{next(_databases)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def kill(self) -> None:
        """End the server as a crash does; connections break."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start it again."""
        self.process = self._start()


def binaries() -> Path:
    """Return the directory with ``initdb`` and ``postgres``.

    Raises:
        Missing: there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise Missing("no PostgreSQL: `apt-get install postgresql` (Debian)")
    return found[-1].parent if found else Path(str(on_path)).parent


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server until the block ends, or this process does, however it ends.

    Raises:
        Missing: it cannot run here.
    """
    programs = binaries()
    folder = Path(tempfile.mkdtemp(prefix="edgeferry-pg-"))
    try:
        user = _user(folder)
        drop = ["setpriv", "--pdeathsig=KILL"]
        if os.getuid() == 0:
            drop += [f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
        data = folder / "data"
        make = [*drop, str(programs / "initdb"), "-D", str(data), "-U", user, "-A", "trust", "-N", "--encoding=UTF8"]
        done = subprocess.run(make, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"initdb failed: {done.stderr.strip()}")
        options = {"listen_addresses": "", "fsync": "off", "max_connections": "60", "shared_buffers": "16MB"}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]

        def start() -> subprocess.Popen[bytes]:
            with (folder / "log").open("ab") as log:
                command = [*drop, str(programs / "postgres"), "-D", str(data), "-k", str(folder), *words]
                process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
            deadline = time.monotonic() + 60
            while True:
                try:
                    psycopg.connect(server.url() if server else f"postgresql://{user}@/postgres?host={folder}").close()
                    return process
                except psycopg.OperationalError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        process.kill()
                        raise Missing(f"PostgreSQL did not start: {(folder / 'log').read_text()[-500:]}") from None

        server: Server | None = None
        server = Server(folder, user, start(), start)
        try:
            yield server
        finally:
            server.process.terminate()  # SIGTERM waits for clients; tests have closed theirs
            try:
                server.process.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user(folder: Path) -> str:
    """Return who runs the server; PostgreSQL refuses root."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    user = next((one.pw_name for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody")), None)
    if user is None:
        raise Missing("no user postgres or nobody to run PostgreSQL as")
    shutil.chown(folder, user)
    return user
