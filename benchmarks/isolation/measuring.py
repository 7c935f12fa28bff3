"""A listener at work on good and bad rows, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import psycopg

from benchmarks.isolation.figures import IDLE, Measured, Phase, parse_calls
from benchmarks.isolation.workloads import BAD, DEEDS, MEASURED, RECEIVERS
from examples import server
from tests.listener.site import Site
from tests.migration.project import Databases, Forge

#: Seconds between two commits of good rows, and between two bad rows.
PAUSE = 0.02, 0.06
BAD_PAUSE = 1.0
#: How many bad rows may wait: one call may take four seconds to end, and has two attempts.
WAITING = 8
WORKERS = 4
MAX_MEMORY = "300M"
#: Seconds in which all bad rows become dead letters, and seconds in which the last call comes.
PATIENCE, LAST_CALL = 120.0, 20.0
#: Seconds in which the listener starts its processes, not measured.
WARM_UP = 2.0


class MisbehavingSite(Site):
    """A project with the app of this package."""

    app = "benchmarks.isolation"


class Writer:
    """Commits good rows until stopped.

    Attributes:
        commits: when COMMIT was sent, by the row's key.
    """

    def __init__(self, url: str, choice: Random) -> None:
        self.commits: dict[int, float] = {}
        self._url = url
        self._choice = choice
        self._stopped = Event()
        self._thread = Thread(target=self._write, name="writer")

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _write(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stopped.wait(self._choice.uniform(*PAUSE)):
                connection.execute("BEGIN")
                ((key,),) = connection.execute(
                    "INSERT INTO isolation_ping DEFAULT VALUES RETURNING id"
                ).fetchall()
                self.commits[key] = time.monotonic()
                connection.execute("COMMIT")


class Range:
    """Where phases are run.

    Args:
        directory: for the site.
        forge: runs its management commands.
        databases: of the server.
        choice: of the writer's pauses.
    """

    def __init__(self, directory: Path, forge: Forge, databases: Databases, choice: Random) -> None:
        self._site = MisbehavingSite(directory / "site", forge, databases)
        self._url = server.database_url(self._site.aliases["default"])
        self._file = directory / "calls.txt"
        self._file.touch()
        self._choice = choice
        self._phases: list[Phase] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The listener runs for as long as the block."""
        arguments = "--concurrency", f"{BAD}={WORKERS}", "--max-memory", MAX_MEMORY
        variables = {"ISOLATION_CALLS": str(self._file)}
        with self._site.listening(*arguments, **variables):
            with Writer(self._url, self._choice):
                time.sleep(WARM_UP)
            yield

    def phase(self, deed: str | None, seconds: float) -> Phase:
        """Commit good rows for so many seconds, with bad ones among them unless it is idle.

        It ends when all bad rows have become dead letters.
        """
        with Writer(self._url, self._choice) as writer:
            if deed is None:
                time.sleep(seconds)
                found = Phase(IDLE, writer.commits)
            else:
                fed, dead = self._misbehave(deed, seconds)
                found = Phase(DEEDS[deed], writer.commits, fed, dead)
        self._phases.append(found)
        return found

    def wait_for_calls(self) -> None:
        """Wait for the last calls; missing calls count as lost."""
        end = time.monotonic() + LAST_CALL
        while self._is_call_missing() and time.monotonic() < end:
            time.sleep(0.1)

    def measured(self) -> Measured:
        return Measured(self._phases, self._calls())

    def _is_call_missing(self) -> bool:
        calls = self._calls()
        return any(
            (queue, key) not in calls
            for phase in self._phases
            for key in phase.commits
            for queue in MEASURED
        )

    def _calls(self) -> dict[tuple[str, int], float]:
        return parse_calls(self._file.read_text().splitlines())

    # Bad rows.

    def _misbehave(self, deed: str, seconds: float) -> tuple[int, int]:
        """Commit a bad row about every second, and fewer where the queue cannot keep up.

        Returns:
            the number of bad rows, and of the dead letters that they became.
        """
        fed = 0
        end = time.monotonic() + seconds
        with (
            psycopg.connect(self._url, autocommit=True) as connection,
            self._lock_held() if deed == "lock" else nullcontext(),
        ):
            before = _dead_letters(connection)

            def dead() -> int:
                return _dead_letters(connection) - before

            while time.monotonic() < end:
                if fed * RECEIVERS - dead() < WAITING * RECEIVERS:
                    connection.execute("INSERT INTO isolation_misdeed (deed) VALUES (%s)", [deed])
                    fed += 1
                time.sleep(BAD_PAUSE)
            end = time.monotonic() + PATIENCE
            while dead() < fed * RECEIVERS and time.monotonic() < end:
                time.sleep(0.1)
            return fed, dead()

    @contextmanager
    def _lock_held(self) -> Iterator[None]:
        with psycopg.connect(self._url) as connection:
            connection.execute("LOCK TABLE isolation_locked IN ACCESS EXCLUSIVE MODE")
            yield


def _dead_letters(connection: psycopg.Connection[Any]) -> int:
    cursor = connection.execute(
        "SELECT count(*) FROM bulksafe_parked WHERE queue = %s AND state = 'dead'", [BAD]
    )
    ((number,),) = cursor.fetchall()
    return int(number)
