"""A site with the counting app on a database of its own, and its listener processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.listener.oracle import judge
from tests.migration.project import Project, environment

#: Seconds that anything may take which is expected to happen.
PATIENCE = 60.0

#: ``COUNTING_DATABASE`` says where the listeners connect, if elsewhere than the tests do.
SETTINGS = """
import json, os
DATABASES["default"].update(json.loads(os.environ.get("COUNTING_DATABASE", "{{}}")))
BULKSAFE = {!r}
"""

_numbers = count(1)


class NeverHappenedError(AssertionError):
    """What was waited for has not come."""


def wait_until(condition, what, seconds=PATIENCE, every=0.02):
    """Return the first true answer of ``condition``."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            said = what() if callable(what) else what
            raise NeverHappenedError(f"not within {seconds:.0f} s: {said}")
        time.sleep(every)
    return answer


@dataclass
class Listener:
    """A process ``manage.py bulksafe listen``, with its children in a process group of its own."""

    process: subprocess.Popen
    log: Path

    @property
    def pid(self):
        return self.process.pid

    @property
    def said(self):
        return self.log.read_text()

    def is_alive(self):
        return self.process.poll() is None

    def children(self):
        """The ids of the processes under it: first the keeper, unless it was replaced."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    @property
    def keeper(self):
        return self.children()[0]

    def workers(self):
        return self.children()[1:]

    def kill(self):
        """SIGKILL of all its processes, as when a machine is gone."""
        for pid in [*self.children(), self.pid]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds=PATIENCE):
        """Wait for its end, and return its exit code."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise NeverHappenedError(f"the listener has not ended:\n{self.said}") from None

    def stop(self):
        """End it as an init system would, and what it leaves behind by force."""
        workers = self.children() if self.is_alive() else []
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            self.wait(PATIENCE / 2)
        finally:
            for pid in [self.pid, *workers] if self.is_alive() else []:
                with suppress(ProcessLookupError):  # a worker has ended, the supervisor has not
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


class Site(Project):
    """A project with the counting app, its tables and its triggers installed."""

    #: Installed beside bulksafe.
    app = "tests.listener.counting"

    def __init__(self, directory, forge, databases):
        name = f"counting_{os.getpid()}_{next(_numbers)}"
        super().__init__(directory, forge, databases, name)
        self.apps.append(self.app)
        self.outside = directory / "outside.txt"
        self.outside.touch()
        #: Rows up to this one are not looked at.
        self.since = 0
        self.bulksafe = {"RETRY_DELAY": 0.05}
        self.migrate("--run-syncdb")

    def write_settings(self):
        self.extra_settings = SETTINGS.format(self.bulksafe)
        super().write_settings()

    # Rows.

    def add_rows(self, number):
        """New rows, with version 0; their ids."""
        listed = self.run(
            "INSERT INTO counting_counter (version) SELECT 0 FROM generate_series(1, %s)"
            " RETURNING id",
            number,
        )
        return [row for (row,) in listed]

    def rows_of_a_bucket(self, number):
        """Ids of as many rows as wanted whose events are read by one cursor; they are new."""
        first = self.add_rows(1)[0]
        listed = [
            first,
            *(
                row
                for (row,) in self.run(
                    "SELECT g FROM generate_series(%s + 1, %s + 1000) AS g WHERE"
                    " hashtextextended(g::text, 0) & 15 = hashtextextended(%s::text, 0) & 15"
                    " ORDER BY g LIMIT %s",
                    *(first, first, first, number - 1),
                )
            ),
        ]
        self.run(
            "INSERT INTO counting_counter (id, version) SELECT unnest(%s::bigint[]), 0", listed[1:]
        )
        self.run("SELECT setval('counting_counter_id_seq', %s)", listed[-1])
        return listed

    def versions(self):
        return dict(self.run("SELECT id, version FROM counting_counter WHERE id > %s", self.since))

    def look_at_new_rows_only(self):
        ((self.since,),) = self.run("SELECT COALESCE(max(id), 0) FROM counting_counter")

    def let_users_count_on(self):
        """A trigger of the user's own: after a change to 3, 7, 11 … the row is changed again."""
        self.run("""
            CREATE FUNCTION count_on() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                UPDATE counting_counter SET version = version + 1 WHERE id = NEW.id;
                RETURN NULL;
            END $$;
            CREATE TRIGGER count_on AFTER UPDATE ON counting_counter
            FOR EACH ROW WHEN (NEW.version % 4 = 3) EXECUTE FUNCTION count_on()
        """)

    # The calls of the receivers.

    def seen(self):
        return self.run(
            "SELECT counter, old, new FROM counting_seen WHERE counter > %s ORDER BY id", self.since
        )

    def seen_outside(self):
        """The calls of the receiver with an effect outside the database."""
        lines = [line.split() for line in self.outside.read_text().splitlines()]
        return [
            (int(row), None if old == "-" else int(old), int(new))
            for row, old, new, _ in lines
            if int(row) > self.since
        ]

    def verdict(self):
        return judge(self.versions(), self.seen())

    def verdict_outside(self):
        return judge(self.versions(), self.seen_outside())

    def lag(self, queue="default"):
        """The number of undelivered changes, computed from the rows alone."""
        changes = sum(version + 1 for version in self.versions().values())
        delivered = self.seen_outside() if queue == "outside" else self.seen()
        return changes - len({(row, new) for row, _, new in delivered})

    def wait_until_delivered(self, *queues, listener=None, seconds=PATIENCE):
        for queue in queues or ("default",):
            wait_until(
                lambda queue=queue: self.lag(queue) <= 0, lambda: self.silence(listener), seconds
            )

    def silence(self, listener=None):
        """What there is to say when calls do not come."""
        verdicts = {"default": self.verdict(), "outside": self.verdict_outside()}
        missing = [f"calls of {q!r} are missing: {v.lost[:5]}" for q, v in verdicts.items()]
        status = self.manage("bulksafe", "status", code=None).output
        return "\n".join([*missing, status, listener.said[-6000:] if listener else ""])

    # Listeners.

    def listen_once(self, *arguments, **variables):
        """Deliver what there is in a process of its own."""
        return self.manage("bulksafe", "listen", "--once", *arguments, **variables)

    def start(self, *arguments, **variables):
        """A listener process."""
        self.write_settings()
        log = self.directory / f"listener{next(_numbers)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "bulksafe", "listen", *arguments],
                cwd=self.directory,
                env=self.environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Listener(process, log)

    @contextmanager
    def listening(self, *arguments, **variables):
        """A listener process that is ready, for as long as the block runs."""
        listener = self.start(*arguments, **variables)
        try:
            self.wait_until_listening(listener)
            yield listener
        finally:
            listener.stop()

    def wait_until_listening(self, listener, number=1):
        def is_ready():
            assert listener.is_alive(), f"the listener has ended:\n{listener.said}"
            return listener.said.count(" listening for ") >= number

        wait_until(is_ready, lambda: f"the listener does not listen:\n{listener.said}")

    def manage(self, *argv, code=0, answers="", **variables):
        if code is None:
            self.write_settings()
            env = self.environment(**variables)
            return self.forge.manage(self.directory, argv, env, answers)
        variables.setdefault("COUNTING_OUTSIDE", str(self.outside))
        return super().manage(*argv, code=code, answers=answers, **variables)

    def environment(self, **variables):
        return environment(**{"COUNTING_OUTSIDE": str(self.outside), **variables})

    # The server's side.

    def wait_until_asleep(self):
        """A listener sleeps: writers notify it."""
        asleep = """
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """
        wait_until(lambda: self.run(asleep), "no listener sleeps")
