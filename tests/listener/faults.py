"""Faults that listeners have to survive, and the verdict on the calls after each.

Database effects come exactly once, outside effects at least once, and both in order for each row.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from bulksafe.outbox import own
from tests.listener.oracle import Verdict
from tests.listener.proxy import Proxy
from tests.listener.site import wait_until
from tests.listener.writers import Traffic

QUEUES = ("default", "outside")
#: The names of a listener's processes.
PROCESSES = ("MainProcess", "keeper", *QUEUES)
#: How many statements a process may make less than it did another time.
_UNSURE = 8
#: Seconds between two polls of a worker that does not poll.
_NEVER = 3600
#: A lease is over as soon as its worker has been silent for so long.
SETTINGS = {"LEASE": 1, "POLL_INTERVAL": 0.5, "SLOW_CALL": 0.5, "TIMEOUT": 2}
ROLE = "counting_listener"

#: Seconds after which connections that are dead without a word are given up: in the tests.
HASTE = {
    "COUNTING_PATIENCE": 1,
    "tcp": {
        "tcp_user_timeout": 1000,
        "keepalives_idle": 1,
        "keepalives_interval": 1,
        "keepalives_count": 1,
    },
}


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        kind: the fault.
        inside: what became of the effects in the database.
        outside: what became of the effects outside.
        recovered: seconds from the fault until every change written up to it and just after it
            was delivered, by queue.
    """

    kind: str
    inside: Verdict
    outside: Verdict
    recovered: dict[str, float]

    @property
    def is_good(self):
        return self.inside.is_exactly_once and self.outside.is_at_least_once


@dataclass
class Range:
    """Where faults are run: a site on a server of its own, and a proxy in between.

    Attributes:
        haste: whether dead connections are given up sooner than a listener would by itself.
        deepest: how many statements each process of a listener makes for what ``_some_events``
            writes; found out once.
    """

    site: object
    machine: object
    proxy: Proxy
    choice: random.Random
    haste: bool = True
    deepest: Counter[str] = field(default_factory=Counter)
    outcomes: list[Outcome] = field(default_factory=list)

    def environment(self, *, proxied=False, **variables):
        """What a listener's process sees: it connects over TCP, as a role of its own."""
        port = self.proxy.port if proxied else self.machine.port
        options = HASTE["tcp"] if self.haste else {}
        database = {"HOST": "127.0.0.1", "PORT": port, "USER": ROLE, "OPTIONS": options}
        if self.haste and proxied:
            variables["COUNTING_PATIENCE"] = str(HASTE["COUNTING_PATIENCE"])
            variables["COUNTING_PROXY"] = str(self.proxy.control)
        return {"COUNTING_DATABASE": json.dumps(database), **variables}

    # The parts of a run.

    @contextmanager
    def traffic(self, transactions=12):
        """Writers at work while the block runs, which starts after some changes were delivered."""
        traffic = Traffic(
            self.machine.url.replace("/postgres?", f"/{self.site.aliases['default']['NAME']}?"),
            self.site.add_rows(6),
            self.choice.random(),
            connects_again=True,
        )
        before = len(self.site.seen())
        traffic.start(writers=3, transactions=transactions)
        try:
            some = self.choice.randint(0, 30)
            wait_until(
                lambda: len(self.site.seen()) >= before + some, "nothing is delivered", every=0.002
            )
            yield
        finally:
            traffic.join()

    def recovery(self, listener, began, *, may_end=False):
        """Seconds from ``began`` until every present change is delivered, by queue.

        That is what was written up to the fault, and new rows of all buckets. A listener that ends
        is restarted if ``may_end``.
        """
        self.site.add_rows(32)
        wanted = {
            (row, version)
            for row, last in self.site.versions().items()
            for version in range(last + 1)
        }
        found = {}

        def is_delivered(queue):
            delivered = self.site.seen() if queue == "default" else self.site.seen_outside()
            return wanted <= {(row, new) for row, _, new in delivered}

        def all_delivered():
            if not listener.is_alive():
                assert may_end, f"the listener has ended: {listener.said}"
                restarted = self._start(wait=False)
                listener.process, listener.log = restarted.process, restarted.log
            for queue in QUEUES:
                if queue not in found and is_delivered(queue):
                    found[queue] = time.monotonic() - began
            return len(found) == len(QUEUES)

        wait_until(all_delivered, lambda: self.site.silence(listener), seconds=120)
        return found

    def outcome(self, kind, recovered):
        """Deliver every remaining change and judge the rows of this run."""
        self.site.listen_once(**self.environment())
        outcome = self._judged(kind, recovered)
        self.outcomes.append(outcome)
        self.site.look_at_new_rows_only()
        return outcome

    def of_all_rows(self):
        """What became of the rows of all runs, in the end."""
        self.site.listen_once(**self.environment())
        self.site.since = 0
        return self._judged("all rows, in the end", {})

    def _judged(self, kind, recovered):
        return Outcome(kind, self.site.verdict(), self.site.verdict_outside(), recovered)

    # Faults of a listener's processes.

    def kill(self):
        """SIGKILL of all processes at a random moment, and a new start."""
        listener = self._start()
        try:
            with self.traffic():
                began = time.monotonic()
                listener.kill()
                listener = self._start(wait=False)
                recovered = self.recovery(listener, began)
        finally:
            listener.stop()
        return recovered

    def kill_all_workers(self):
        """SIGKILL of all workers at once; the supervisor replaces them."""
        return self._signalled(lambda listener: listener.workers())

    def kill_some_workers(self):
        return self._signalled(lambda listener: listener.workers()[::2])

    def kill_keeper(self):
        return self._signalled(lambda listener: [listener.keeper])

    def stop_workers(self):
        """SIGSTOP of all workers: what they had locked stays locked, and they go on later."""
        return self._stopped(lambda listener: listener.workers())

    def stop_all(self):
        """SIGSTOP of the whole listener, while a second one takes over."""
        return self._stopped(lambda listener: [*listener.children(), listener.pid])

    def _signalled(self, victims):
        listener = self._start("--concurrency", "2")
        try:
            with self.traffic():
                began = time.monotonic()
                for pid in victims(listener):
                    os.kill(pid, signal.SIGKILL)
                recovered = self.recovery(listener, began)
        finally:
            listener.stop()
        return recovered

    def _stopped(self, victims):
        listener, other = self._start("--concurrency", "2"), None
        try:
            with self.traffic():
                began = time.monotonic()
                stopped = victims(listener)
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
                other = self._start()
                # Rows with unlocked cursors are delivered first; the others follow.
                new = self.site.add_rows(32)
                seen = "SELECT FROM counting_seen WHERE counter = ANY (%s)"
                wait_until(lambda: self.site.run(seen, new), lambda: self.site.silence(other))
                for pid in stopped:
                    # The supervisor kills a worker that stood still in a call for too long.
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                recovered = self.recovery(listener, began)
        finally:
            listener.stop()
            if other:
                other.stop()
        return recovered

    def hang(self):
        """Each receiver hangs at some rows, once each."""
        return self._while_listening(lambda listener: None, COUNTING_DEED=self._deed("hang"))

    def end(self):
        """Each receiver ends its process at some rows, once each."""
        return self._while_listening(lambda listener: None, COUNTING_DEED=self._deed("end"))

    def _deed(self, deed):
        """What receivers are to do, and a folder in which they note what they have done."""
        folder = self.site.directory / f"deeds{len(self.outcomes)}"
        folder.mkdir(exist_ok=True)
        return f"{deed}:{folder}"

    def versions(self):
        """A listener whose code has none of the receivers yet works beside one that has."""
        old = self._start(COUNTING_OLD="1")
        try:
            return self._while_listening(lambda listener: None)
        finally:
            old.stop()

    def kill_supervisor(self):
        """SIGKILL of the supervisor: its workers end by themselves."""
        listener = self._start("--concurrency", "2")
        workers = listener.children()
        try:
            with self.traffic():
                began = time.monotonic()
                os.kill(listener.pid, signal.SIGKILL)
                listener.process.wait()
                listener = self._start(wait=False)
                recovered = self.recovery(listener, began)
            for pid in workers:
                wait_until(lambda pid=pid: not _is_running(pid), f"worker {pid} goes on")
        finally:
            listener.stop()
        return recovered

    def kill_at(self, place):
        """SIGKILL before or after one of its statements."""
        self._some_events()
        done = self.site.directory / "done"
        done.unlink(missing_ok=True)
        environment = self.environment(COUNTING_FAULT=place, COUNTING_DONE=str(done))
        killed = self.site.manage("bulksafe", "listen", "--once", code=None, **environment)
        is_supervisor = place.startswith("MainProcess:")
        assert killed.code in ((-signal.SIGKILL,) if is_supervisor else (0, 1)), (place, killed)
        # How often the keeper looks is a matter of time.
        assert done.exists() or place.startswith("keeper"), f"{place} was not come to"
        assert "Traceback" not in killed.stderr
        return self._restarted()

    def kill_at_a_statement(self):
        return self.kill_at(self._place_in_a_batch())

    def places(self):
        """All the places between the statements of a listener that deals with some events."""
        if not self.deepest:
            self._some_events()
            counted = self.site.directory / "statements"
            counted.write_text("")
            # On a busy machine, workers would poll while they wait for the keeper to start, and the
            # next listener may never come to as many statements.
            self.site.bulksafe["POLL_INTERVAL"] = _NEVER
            try:
                self.site.listen_once(**self.environment(COUNTING_STATEMENTS=str(counted)))
            finally:
                self.site.bulksafe |= SETTINGS
            self.deepest = Counter(counted.read_text().split())
        # A process may or may not send its last statements, depending on whether it is woken again.
        return [
            f"{who}:{side}:{number}"
            for who, statements in sorted(self.deepest.items())
            for number in range(1, statements - _UNSURE)
            for side in ("before", "after")
        ]

    def _some_events(self):
        """The same each time: a batch with a row that changes twice, and one that does not."""
        self.site.listen_once(**self.environment())
        one, other = self.site.rows_of_a_bucket(2)
        for row in (one, other, one):
            self.site.run("UPDATE counting_counter SET version = version + 1 WHERE id = %s", row)

    # Faults of the server and of the network.

    def terminate(self):
        """The server ends all the listener's connections."""
        return self._while_listening(self._terminate)

    def _terminate(self, listener):
        self.site.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", ROLE
        )

    def restart_fast(self):
        return self._while_listening(lambda listener: self.machine.restart("fast"))

    def restart_immediate(self):
        return self._while_listening(lambda listener: self.machine.restart("immediate"))

    def silence(self):
        """A proxy in between hangs: it takes all, and hands on nothing."""
        return self._while_listening(lambda listener: self.proxy.silence(), proxied=True)

    def unplug(self):
        """The network is gone, without a word to either end."""
        return self._while_listening(lambda listener: self.proxy.unplug(), proxied=True)

    def silence_a_sleeper(self):
        return self._while_asleep(self.proxy.silence)

    def unplug_a_sleeper(self):
        return self._while_asleep(self.proxy.unplug)

    def unplug_in_a_batch(self):
        """The server holds the cursors' locks for a client that is gone."""
        return self.cut_at("unplug", self._place_in_a_batch())

    def silence_in_a_batch(self):
        return self.cut_at("silence", self._place_in_a_batch())

    def silence_at_a_connect(self):
        """A new connection is open, and the first query on it gets no answer."""
        return self.cut_at("silence", f"{self.choice.choice(PROCESSES)}:connecting")

    def reset_in_a_batch(self):
        return self.cut_at("reset", self._place_in_a_batch())

    def cut_at(self, how, place):
        """The connections end, or die, before or after one of the listener's statements.

        A process that has not begun to listen may say that there is no database, and end.
        """
        self._some_events()
        done = self.site.directory / "done"
        done.unlink(missing_ok=True)
        recovered = self._restarted(
            may_end=True,
            proxied=True,
            COUNTING_FAULT=place,
            COUNTING_DONE=str(done),
            COUNTING_CUT=f"{how}:{self.proxy.control}",
        )
        assert done.exists() or not place.endswith("images"), f"{place} was not come to"
        return recovered

    def _place_in_a_batch(self):
        return self.choice.choice(self.places())

    def limit_connections(self):
        """The role may have no connection, or fewer than the listener wants."""

        def limit(listener):
            number = self.choice.randint(0, 1)
            self.site.run(f"ALTER ROLE {ROLE} CONNECTION LIMIT {number}")
            try:
                self._terminate(listener)
                wait_until(
                    lambda: "too many connections" in listener.said,
                    lambda: f"the limit is not noticed: {listener.said}",
                )
            finally:
                self.site.run(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")

        return self._while_listening(limit)

    def restart_between(self):
        """Events are left from before a crash of the server, and no listener ran."""
        self._some_events()
        self.machine.restart("immediate")
        return self._restarted()

    def _restarted(self, *, may_end=False, **where):
        began = time.monotonic()
        listener = self._start(wait=False, **where)
        try:
            return self.recovery(listener, began, may_end=may_end)
        finally:
            listener.stop()

    def _while_listening(self, fault, **where):
        listener = self._start(**where)
        try:
            with self.traffic():
                began = time.monotonic()
                fault(listener)
                recovered = self.recovery(listener, began)
            self.site.wait_until_delivered(*QUEUES, listener=listener)
        finally:
            listener.stop()
        return recovered

    def _while_asleep(self, fault):
        listener = self._start(proxied=True)
        try:
            self._some_events()
            self.site.wait_until_delivered(*QUEUES, listener=listener)
            self.site.wait_until_asleep()
            began = time.monotonic()
            assert fault() > 0
            return self.recovery(listener, began)
        finally:
            listener.stop()

    def _start(self, *arguments, wait=True, proxied=False, **variables):
        environment = self.environment(proxied=proxied, **variables)
        listener = self.site.start(*arguments, **environment)
        if wait:
            try:
                self.site.wait_until_listening(listener)
            except BaseException:
                listener.stop()
                raise
        return listener


def _is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


#: Every kind of fault, by name.
KINDS: dict[str, Callable[[Range], dict[str, float]]] = {
    "SIGKILL": Range.kill,
    "SIGKILL between two statements": Range.kill_at_a_statement,
    "SIGKILL of all workers": Range.kill_all_workers,
    "SIGKILL of some workers": Range.kill_some_workers,
    "SIGKILL of the keeper": Range.kill_keeper,
    "SIGKILL of the supervisor": Range.kill_supervisor,
    "SIGSTOP of all workers": Range.stop_workers,
    "SIGSTOP of the whole listener": Range.stop_all,
    "calls hang": Range.hang,
    "calls end their process": Range.end,
    "two versions of the code": Range.versions,
    "connections terminated": Range.terminate,
    "server restarted": Range.restart_fast,
    "server crashed": Range.restart_immediate,
    "server crashed before the start": Range.restart_between,
    "connection limit reached": Range.limit_connections,
    "connection lost between two statements": Range.reset_in_a_batch,
    "proxy hangs": Range.silence,
    "proxy hangs, all asleep": Range.silence_a_sleeper,
    "proxy hangs in a batch": Range.silence_in_a_batch,
    "proxy hangs at a connect": Range.silence_at_a_connect,
    "network gone": Range.unplug,
    "network gone, all asleep": Range.unplug_a_sleeper,
    "network gone in a batch": Range.unplug_in_a_batch,
}


def run(faults, kind):
    return faults.outcome(kind, KINDS[kind](faults))


def prepare(site):
    """The role that listeners connect as."""
    with psycopg.connect(site.databases.url, autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchall():
            connection.execute(f"CREATE ROLE {ROLE} LOGIN")
    site.run(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}")
    site.run(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
    site.run(f"GRANT EXECUTE ON FUNCTION {', '.join(own.WRITING)} TO {ROLE}")
    site.bulksafe |= SETTINGS
