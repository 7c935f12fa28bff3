"""A rule comes to a table of a million rows, beside writers: ``python -m benchmarks.adoption``."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.options import positive
from examples import server
from tests.migration.project import Databases, Forge, Project, environment

EXAMPLES = """\
examples:
  python -m benchmarks.adoption                  1,000,000 rows: a few minutes
  python -m benchmarks.adoption --rows 50000     a first look
  python -m benchmarks.adoption --pause 0        writers without a pause

exit status: 0 every row is right, no writer's change is lost and none waited for over 100 ms,
1 otherwise
"""

ROWS = 1_000_000
#: Milliseconds that a writer may wait for a lock of the backfill.
LIMIT = 100

SERVER_OPTIONS = {
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    # A line of the log for each wait that is longer than deadlock_timeout.
    "log_lock_waits": "on",
    "deadlock_timeout": f"{LIMIT}ms",
    "logging_collector": "on",
    "log_directory": "log",
}

BEFORE = """
class Order(models.Model):
    amount = models.IntegerField()
    discount = models.IntegerField(default=0)
    net = models.IntegerField(null=True, editable=False)
"""
AFTER = f"""{BEFORE}
    class Meta:
        triggers = [bulksafe.Compute("net", F("amount") - F("discount"))]
"""

#: For how long backends have waited for a lock that another program's backend holds.
WAITS = """
    SELECT EXTRACT(epoch FROM clock_timestamp() - l.waitstart)::float * 1000
    FROM pg_locks AS l
    WHERE NOT l.granted AND l.pid = ANY (%s::int[]) AND l.waitstart IS NOT NULL
      AND NOT pg_blocking_pids(l.pid) <@ %s::int[]
"""


@dataclass
class Writer(threading.Thread):
    """Changes one random row after the other.

    Attributes:
        url: the database.
        rows: the number of rows of the table.
        pause: seconds between two changes.
        times: the milliseconds of each change.
    """

    url: str
    rows: int
    pause: float
    seed: int
    times: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    pid: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.pid = self.connection.info.backend_pid

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        choose = random.Random(self.seed)
        while not self.ended.wait(self.pause):
            started = time.perf_counter()
            self.connection.execute(
                "UPDATE shop_order SET amount = amount + 1 WHERE id = %s",
                [choose.randint(1, self.rows)],
            )
            self.times.append((time.perf_counter() - started) * 1000)
        self.connection.close()


@dataclass
class Sampler(threading.Thread):
    """Samples how long writers wait for locks of others than each other."""

    url: str
    pids: Sequence[int]
    waits: list[float] = field(default_factory=list)
    samples: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        pids = list(self.pids)
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self.ended.wait(0.002):
                self.samples += 1
                self.waits += [ms for (ms,) in connection.execute(WAITS, [pids, pids])]


@contextmanager
def writing(url: str, rows: int, pause: float) -> Iterator[tuple[list[Writer], Sampler]]:
    writers = [Writer(url, rows, pause, seed) for seed in (1, 2)]
    sampler = Sampler(url, [writer.pid for writer in writers])
    threads: list[Writer | Sampler] = [*writers, sampler]
    for thread in threads:
        thread.start()
    try:
        yield writers, sampler
    finally:
        for thread in threads:
            thread.ended.set()
            thread.join()


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    started = server.start(options.postgres, options=SERVER_OPTIONS)
    databases, forge = Databases(started.url), Forge()
    try:
        with tempfile.TemporaryDirectory() as directory:
            project = Project(Path(directory) / "site", forge, databases, f"adopt_{os.getpid()}")
            found = _adopt(project, options, console)
    finally:
        forge.close()
        databases.drop()
        started.stop()
    table = Table(title=f"{options.rows:,} rows, 2 writers", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in found.figures:
        table.add_row(name, value)
    console.print(table)
    for failure in found.failures:
        console.print(f"FAILED: {failure}", markup=False, highlight=False)
    return int(bool(found.failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adoption",
        description="Verify and backfill a table while others write to it; the backfill is killed "
        "in the middle and goes on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=positive, default=ROWS, metavar="N")
    parser.add_argument(
        "--pause", type=float, default=0.005, metavar="S", help="of a writer (default: 0.005)"
    )
    parser.add_argument("--postgres", choices=["embedded", "system"], default="embedded")
    return parser


@dataclass
class Figures:
    figures: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        self.figures.append((name, value))

    def expect(self, holds: bool, failure: str) -> None:
        if not holds:
            self.failures.append(failure)


def _adopt(project: Project, options: argparse.Namespace, console: Console) -> Figures:
    found, rows = Figures(), options.rows
    _fill(project, rows)
    console.print("verify, without a trigger …", style="dim")
    seconds, violations = _verify(project)
    found.add("verify: rows a second, all of them wrong", f"{rows / seconds:,.0f}")
    found.expect(violations == rows, f"verify found {violations:,} of {rows:,} wrong rows")
    project.migrate()
    total = _value(project, "SELECT sum(amount) FROM shop_order")
    url = server.database_url(project.aliases["default"])

    console.print("writers alone …", style="dim")
    with writing(url, rows, options.pause) as (alone, _):
        time.sleep(5)
    console.print("backfill beside writers, until SIGKILL …", style="dim")
    with writing(url, rows, options.pause) as (writers, sampler):
        _backfill(project, rows, found, console)
    found.add("changes of the writers meanwhile", f"{sum(len(w.times) for w in writers):,}")
    _add_times(found, "alone", alone)
    _add_times(found, "beside the backfill", writers)
    _add_waits(found, project, sampler)

    seconds, violations = _verify(project)
    found.add("verify: rows a second, none of them wrong", f"{rows / seconds:,.0f}")
    wrong = _value(project, f"SELECT count(*) FROM shop_order WHERE {_WRONG}")
    found.expect(wrong == violations == 0, f"{wrong} rows are wrong, verify found {violations}")
    changed = _value(project, "SELECT sum(amount) FROM shop_order") - total
    written = sum(len(writer.times) for writer in [*alone, *writers])
    found.expect(changed == written, f"{written - changed} changes of writers were lost")
    return found


def _fill(project: Project, rows: int) -> None:
    """Make a table without rules and fill it; then declare the rule, without migrating."""
    project.models(BEFORE)
    project.make()
    project.migrate()
    project.run(
        "INSERT INTO shop_order (amount, discount) "
        "SELECT n, n %% 10 FROM generate_series(1, %s) AS n",
        rows,
    )
    project.run("VACUUM ANALYZE shop_order")
    project.models(AFTER)
    project.make()


def _backfill(project: Project, rows: int, found: Figures, console: Console) -> None:
    """Repair all rows in two runs, the first of which is killed."""
    began = time.monotonic()
    position = _killed(project, rows * 2 // 5)
    seconds = time.monotonic() - began
    left = _value(project, f"SELECT count(*) FROM shop_order WHERE {_WRONG}")
    lost = f"SELECT count(*) FROM shop_order WHERE {_WRONG} AND id <= {position}"
    found.expect(_value(project, lost) == 0, "rows up to the position were lost by SIGKILL")
    found.add("backfill: rows a second, until SIGKILL", f"{(rows - left) / seconds:,.0f}")

    console.print(f"killed after {seconds:.0f} s; backfill --after {position} …", style="dim")
    began = time.monotonic()
    out, _ = _started(project, "--json", "shop.Order", "--after", str(position)).communicate()
    seconds = time.monotonic() - began
    (entry,) = json.loads(out)["invariants"]
    found.add("backfill: rows a second, afterwards", f"{entry['repaired'] / seconds:,.0f}")
    found.add("rows read after SIGKILL, and rows up to it", f"{entry['rows']:,} / {position:,}")
    found.expect(entry["remaining"] == [], f"remaining: {entry['remaining'][:3]}")


def _add_times(found: Figures, name: str, writers: Sequence[Writer]) -> None:
    times = sorted(ms for writer in writers for ms in writer.times)
    shown = [statistics.median(times), times[len(times) * 99 // 100], times[-1]]
    found.add(
        f"a change {name}, ms: median / p99 / longest", " / ".join(f"{ms:.1f}" for ms in shown)
    )


def _add_waits(found: Figures, project: Project, sampler: Sampler) -> None:
    longest = max(sampler.waits, default=0.0)
    found.expect(sampler.samples > 100, f"pg_locks was sampled {sampler.samples} times")
    found.add("samples of pg_locks", f"{sampler.samples:,}")
    found.add("samples with a writer that waits for the backfill", f"{len(sampler.waits):,}")
    found.add("longest of these waits, ms", f"{longest:.1f}")
    lines = _value(project, "SELECT pg_read_file(pg_current_logfile())").count("still waiting for")
    found.add(f"waits over {LIMIT} ms in the server's log", str(lines))
    deadlocks = _value(
        project, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    found.add("deadlocks", str(deadlocks))
    found.expect(longest <= LIMIT, f"a writer waited for {longest:.0f} ms")
    found.expect(lines == 0, f"{lines} waits over {LIMIT} ms are in the server's log")
    found.expect(deadlocks == 0, f"{deadlocks} deadlocks")


_WRONG = "net IS DISTINCT FROM amount - discount"


def _value(project: Project, statement: str) -> Any:
    return project.run(statement)[0][0]


def _verify(project: Project) -> tuple[float, int]:
    began = time.monotonic()
    shown = project.manage("bulksafe", "verify", "--json", code=None).stdout
    return time.monotonic() - began, json.loads(shown)["invariants"][0]["violations"]


def _started(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "bulksafe", "backfill", *arguments],
        cwd=project.directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _killed(project: Project, beyond: int) -> int:
    """Run a backfill, end it once its position is beyond a key, and return the position."""
    process = _started(project, "-v", "2")
    position = 0
    for line in process.stderr or ():
        found = re.search(r"--after (\d+)", line)
        position = int(found[1]) if found else position
        if position > beyond:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    return position


if __name__ == "__main__":
    sys.exit(main())
