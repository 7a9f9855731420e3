"""A PostgreSQL of the tests' own: on a free port of this machine alone, in a folder that goes with it."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Server:
    """It is started and stopped by `pg_ctl`; what it holds stays in its folder."""

    def __init__(self, control: str, home: Path) -> None:
        user = []  # PostgreSQL refuses to run as root
        if os.getuid() == 0:
            shutil.chown(home, "postgres")
            user = ["runuser", "-u", "postgres", "--"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home, self._control = home, [*user, control, "-D", f"{home}/data", "-w"]
        self.do("initdb", "-o", "-A trust -U postgres")

    def do(self, *arguments: str) -> None:
        out = subprocess.DEVNULL
        subprocess.run([*self._control, *arguments], cwd=self.home, check=True, stdout=out, stderr=out)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.home} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.do("-l", f"{self.home}/log", "-o", options, "start")

    def stop(self) -> None:
        """As a crash does: every connection is lost."""
        self.do("-m", "immediate", "stop")

    def address(self, driver: str = "postgresql", user: str = "postgres", database: str = "postgres") -> str:
        return f"{driver}://{user}@127.0.0.1:{self.port}/{database}"


@contextmanager
def running() -> Iterator[Server]:
    """A server with an empty database; skips where there is none to be had."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True), shutil.which("pg_ctl")]
    if found[0] is None:
        pytest.skip("no PostgreSQL: install the package `postgresql` (Debian's name)")
    pytest.importorskip("psycopg2", reason="no driver for PostgreSQL: pip install psycopg2-binary")
    home = Path("/tmp", f"ctr-postgresql-{os.getpid()}")  # a socket's path must be short
    home.mkdir()
    server = None
    try:
        server = Server(str(found[0]), home)
        server.start()
        yield server
    finally:
        if server is not None and Path(home, "data", "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(home)
