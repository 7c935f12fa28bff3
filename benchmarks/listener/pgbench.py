"""PostgreSQL's own load generator."""

from __future__ import annotations

import re
import subprocess
import tempfile

from benchmarks.listener import database
from examples.server import Server

_TPS = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


class Pgbench:
    """Runs one statement again and again.

    Args:
        server: the server of the benchmark.
    """

    def __init__(self, server: Server) -> None:
        self.program = server.bin / "pgbench"

    def start(self, statement: str, clients: int, seconds: int) -> subprocess.Popen[str]:
        """Begin a run; ``finish`` waits for its end."""
        command = [
            str(self.program),
            "--no-vacuum",
            "--file=-",
            f"--client={clients}",
            f"--jobs={min(clients, 2)}",
            f"--time={seconds}",
            "--protocol=prepared",
            database.url(),
        ]
        with tempfile.TemporaryFile("w+") as script:
            script.write(statement + "\n")
            script.seek(0)
            return subprocess.Popen(
                command, stdin=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

    def finish(self, running: subprocess.Popen[str]) -> float:
        """Transactions per second, without the time of connecting."""
        output, errors = running.communicate()
        found = _TPS.search(output)
        if running.returncode != 0 or found is None:
            raise RuntimeError(f"pgbench failed: {errors or output}")
        return float(found[1])

    def per_second(self, statement: str, clients: int, seconds: int) -> float:
        return self.finish(self.start(statement, clients, seconds))


def insert_into(table: str) -> str:
    """A script that adds one row."""
    return (
        f"INSERT INTO {table} (number, status, amount, step, note, placed_at) "
        "VALUES ('SO-1', 'draft', 100, 1, '', now());"
    )


def update_of(table: str, rows: int) -> str:
    """A script that changes one row, by chance."""
    return f"\\set id random(1, {rows})\nUPDATE {table} SET step = step + 1 WHERE id = :id;"
