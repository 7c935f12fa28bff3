"""A PostgreSQL server of the test's own, which the test may restart."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from examples import server

#: Commits are durable: what an immediate restart takes back would look like a call for nothing.
OPTIONS = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Machine:
    """The server.

    Attributes:
        url: of its Unix socket, for the tests themselves.
        port: on loopback.
    """

    url: str
    port: int
    bin: Path
    data: Path

    def restart(self, mode):
        """Restart it; ``"immediate"`` is a crash, and a recovery."""
        owner = self.data.stat().st_uid
        identity = {"user": owner, "group": owner, "extra_groups": []} if not os.geteuid() else {}
        log = self.data.parent / "restarts.log"
        command = ["pg_ctl", "restart", "-w", "-t", "60", "-D", str(self.data), "-m", mode]
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:], "-l", str(log)],
            cwd=self.data.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=90,
            **identity,
        )
        assert done.returncode == 0, log.read_text() if log.exists() else "no log"


@contextmanager
def machine(kind):
    """Start a server, whatever DATABASE_URL says; it ends with the block."""
    elsewhere = os.environ.pop("DATABASE_URL", None)
    port = _free_port()
    try:
        started = server.start(
            kind, options={**OPTIONS, "listen_addresses": "127.0.0.1", "port": str(port)}
        )
    finally:
        if elsewhere is not None:
            os.environ["DATABASE_URL"] = elsewhere
    try:
        url = started.url.replace("port=5432", f"port={port}")
        with psycopg.connect(url) as connection:
            ((data,),) = connection.execute("SHOW data_directory").fetchall()
        yield Machine(url, port, started.bin, Path(data))
    finally:
        with suppress(FileNotFoundError):
            started.stop()


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
