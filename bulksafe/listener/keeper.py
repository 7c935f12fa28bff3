"""The process that wakes the workers and reports their state.

It runs no receiver, so no receiver can keep other queues waiting.

NOTIFY takes a lock that serializes all commits on the server. So writers notify only while a
listener sleeps: a sleeper holds an advisory lock exclusively, and a writer that gets it shared
skips the NOTIFY, since no listener sleeps. A keeper only *tries* to get the lock. If it succeeds,
it checks once more for earlier writes, and every later write notifies it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import transaction

from bulksafe import conf
from bulksafe.dispatch.alone import LEFT
from bulksafe.dispatch.sources import known
from bulksafe.listener.descriptors import readable
from bulksafe.listener.reports import Reports
from bulksafe.listener.serving import STEP, Serving
from bulksafe.listener.watchdog import Prober, open_raw
from bulksafe.outbox import keeping, parking
from bulksafe.outbox.known import Known
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from bulksafe.listener.slots import Places
    from bulksafe.listener.watchdog import Watchdog

logger = logging.getLogger("bulksafe")

_CHANNEL = "bulksafe"

#: Seconds between two checks while write transactions are open, which may commit now or in hours.
_SHORTEST, _LONGEST = 0.002, 0.05
#: Seconds between waking the first worker of a queue and waking more, and how many at most.
_FIRST, _MOST = 0.005, 256
#: Seconds between two checks for idle workers while others make progress: writers need not notify.
_DRAINING = 0.01
#: Seconds between two checks of the outbox slots and of the existing tables.
_TIDY = 5.0


def application_name(queues: str) -> str:
    """The listener's name in ``bulksafe status``; PostgreSQL truncates it to 63 bytes."""
    return f"bulksafe listen {socket.gethostname()[:20]}:{os.getppid()} {queues}"


class _Pace:
    """How many workers of a queue to wake, and when to wake more.

    The first event wakes a single worker: more would run the same queries only to find the event
    claimed. The others follow within milliseconds if events are left, since the first one may be in
    a long call. While no worker makes progress, the pauses grow: a different listener may have the
    events.
    """

    def __init__(self) -> None:
        self._rounds = -1
        self._pause = _FIRST
        self._until = 0.0
        self._number = 1

    def seconds(self, rounds: int) -> float:
        """Seconds until workers may be woken, given the rounds of the queue's workers."""
        return max(self._until - time.monotonic(), 0.0) if rounds == self._rounds else 0.0

    def wake(self, rounds: int) -> int:
        """The number of workers to wake now."""
        now = time.monotonic()
        in_vain = rounds == self._rounds and now < self._until + _LONGEST
        self._pause = min(self._pause * 1.5, _LONGEST) if in_vain else _FIRST
        self._number = min(self._number * 2, _MOST) if in_vain else 1
        self._rounds = rounds
        self._until = now + self._pause
        return self._number


class Keeper:
    """Wakes the workers of a listener when there is work.

    Args:
        serving: its connection and its signal handling.
        places: the shared state of the workers.
        deaths: receives the calls of worker processes that have ended.
        once: end when no work is left.
    """

    def __init__(self, serving: Serving, places: Places, deaths: Connection, *, once: bool) -> None:
        self._serving = serving
        self._places = places
        self._once = once
        self._store = Store(serving.using)
        self._reports = Reports(self._store, places, deaths)
        self._paces = {queue: _Pace() for queue in places.queues}
        self._known = Known()
        self._rounds = 0
        self._pause = _SHORTEST
        self._tidied = float("-inf")

    def run(self) -> None:
        self._serving.on_signal = self._places.bell.ring
        self._serving.run(self._serve)

    def _serve(self, watchdog: Watchdog) -> None:
        name = application_name(",".join(self._places.queues))
        ear = open_raw(self._serving.using, name, watchdog)
        prober = Prober(ear, watchdog, partial(self._probe, ear))
        try:
            with watchdog.watch():
                ear.execute(f"LISTEN {_CHANNEL}")
            with watchdog.watch():
                # Before the first look: without it, no work would be found, and --once would end.
                self._known = known(self._serving.using)
            self._places.shared.is_connected = True
            queues = ", ".join(self._places.queues)
            logger.info("listening for %s on %r", queues, self._serving.using)
            while not self._serving.stopping() and not self._is_done():
                # The reports first: they renew leases and store deaths, even where the rest fails.
                with watchdog.watch():
                    self._reports.write(self._known)
                with watchdog.watch():
                    self._tidy()
                self._look(ear, watchdog)
                # After all queries: a connection on which one of them fails is not one that works.
                self._serving.connected()
            with watchdog.watch():
                self._reports.end()
        finally:
            self._places.shared.is_connected = False
            prober.close()

    def _probe(self, ear: psycopg.Connection[Any]) -> None:
        ear.execute("SELECT 1")
        # A notification that arrives with the answer does not wake select().
        self._places.bell.ring()

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied < _TIDY:
            return
        keeping.tidy(self._store)
        parking.wake_all_free(self._store, self._places.queues)
        self._known = known(self._serving.using)
        self._tidied = time.monotonic()

    # Waking.

    def _look(self, ear: psycopg.Connection[Any], watchdog: Watchdog) -> None:
        """Wake the workers that have work, or sleep until there may be some."""
        idle = self._idle()
        if not idle:
            self._places.bell.wait(min(STEP, self._until_due(idle)))
            return
        if self._is_draining():
            with watchdog.watch():
                self._wake(self._ready(idle))
            self._places.bell.wait(_DRAINING)
            return
        with transaction.atomic(using=self._serving.using):
            with watchdog.watch():
                ((_, has_lock),) = self._store.rows("sleep", unlimited=self._store.unlimited)
                ready = self._ready(idle)
            is_asleep = has_lock and not ready
            if is_asleep:
                self._pause = _SHORTEST
                ready = self._sleep(ear, idle)
            # Before the COMMIT, which need not be waited for.
            self._wake(ready)
        if ready or is_asleep:
            return
        with watchdog.watch():
            ((is_other,),) = self._store.rows("other_sleeper")
        # The sleeping listener is notified for both. Without one, writers are about to commit.
        self._is_notified(ear, self._seconds(idle) if is_other else self._pause)
        self._pause = min(self._pause * 1.5, _LONGEST)

    def _sleep(self, ear: psycopg.Connection[Any], idle: set[str]) -> set[str]:
        """Wait for a notification; the lock is held.

        Args:
            idle: the queues that were checked and have no work.

        Returns:
            the queues that may have work now; empty if all idle queues must be checked again.
        """
        since = time.monotonic()
        while not self._is_notified(ear, self._seconds(idle)):
            rested = self._idle() - idle
            if self._once or not rested or not all(self._has_looked(q, since) for q in rested):
                return set()
            # Their workers have checked since the lock was taken; later writers notify.
            idle = idle | rested
        # A single queue is faster to wake than to query.
        return idle if len(idle) == 1 else self._ready(idle)

    def _ready(self, idle: set[str]) -> set[str]:
        return self._store.ready(self._places.queues, self._known, idle)

    def _has_looked(self, queue: str, since: float) -> bool:
        """Whether an idle worker of the queue has found no work since then."""
        return any(
            slot.activity.is_idle and slot.activity.looked >= since
            for slot in self._places.slots
            if slot.queue == queue
        )

    def _idle(self) -> set[str]:
        """The queues with an idle worker that may be checked."""
        return {queue for queue in self._waiting() if not self._seconds_of(queue)}

    def _until_due(self, idle: set[str]) -> float:
        """Seconds until one of the other queues with idle workers may be checked."""
        held_back = self._waiting() - idle
        return min((self._seconds_of(queue) for queue in held_back), default=inf)

    def _waiting(self) -> set[str]:
        return {slot.queue for slot in self._places.slots if slot.activity.is_idle}

    def _seconds_of(self, queue: str) -> float:
        return self._paces[queue].seconds(self._rounds_of(queue))

    def _rounds_of(self, queue: str) -> int:
        return sum(slot.activity.rounds for slot in self._places.slots if slot.queue == queue)

    def _is_draining(self) -> bool:
        """Whether busy workers make progress: then writers need not notify."""
        busy = any(not slot.activity.is_idle for slot in self._places.slots)
        rounds = sum(slot.activity.rounds for slot in self._places.slots)
        has_progress = rounds != self._rounds
        self._rounds = rounds
        return busy and has_progress

    def _wake(self, queues: set[str]) -> None:
        for queue in queues:
            idle = [s for s in self._places.slots if s.queue == queue and s.activity.is_idle]
            for slot in idle[: self._paces[queue].wake(self._rounds_of(queue))]:
                slot.activity.is_idle = False
                slot.bell.ring()

    def _seconds(self, idle: set[str]) -> float:
        """Seconds to sleep: until the next retry is due."""
        longest = min(conf.get().POLL_INTERVAL, self._reports.seconds())
        due = self._store.next_due(idle)
        return min(longest, self._until_due(idle), longest if due is None else due)

    def _is_notified(self, ear: psycopg.Connection[Any], seconds: float) -> bool:
        """Whether a notification arrives within ``seconds``, before a worker rings."""
        own = ear.info.backend_pid
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._serving.stopping():
            if any(notice.pid != own for notice in ear.notifies(timeout=0)):
                return True
            bell = self._places.bell.fileno()
            if bell in readable([ear.fileno(), bell], min(left, STEP)):
                self._places.bell.silence()
                return False
        return False

    # With ``once``.

    def _is_done(self) -> bool:
        """Whether no work is left: every worker has checked, and so has this process."""
        if not self._once or not all(slot.activity.is_idle for slot in self._places.slots):
            return False
        rounds = [slot.activity.rounds for slot in self._places.slots]
        # In this order: a call whose lease ends between the two queries is found by the second.
        if parking.is_taken(self._store, self._places.queues, LEFT):
            return False
        if self._store.ready(self._places.queues, self._known):
            return False
        found = all(slot.activity.is_idle for slot in self._places.slots)
        done = found and rounds == [slot.activity.rounds for slot in self._places.slots]
        self._places.shared.is_done = done
        return done
