"""Sleeping until there is something to do.

NOTIFY takes a lock that all committing transactions of the server wait for. So writers send one
only when somebody sleeps: a sleeper holds an advisory lock exclusively, and a writer that gets it
shared knows that nobody does. Whoever wants to sleep only *tries* to get the lock; who gets it
looks once more, for what was written before, and may then be sure to be woken.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connections, transaction

from bulksafe import conf
from bulksafe.listener.watchdog import TCP, shut_down

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulksafe.dispatch.worker import Worker
    from bulksafe.listener.watchdog import Watchdog

logger = logging.getLogger("bulksafe")

_CHANNEL = "bulksafe"

#: Seconds between two looks while writers are at it: they may be about to commit, or not for hours.
_SHORTEST, _LONGEST = 0.002, 0.05
#: Seconds between two notifications of a listener that is at work: each costs all who commit.
_TELLING = 0.05
#: Seconds after which a waiting process looks whether it should stop.
_STEP = 0.25


def application_name(queues: str) -> str:
    """Under which ``bulksafe status`` finds the listeners; PostgreSQL cuts it at 63 bytes."""
    return f"bulksafe listen {socket.gethostname()[:20]}:{os.getpid()} {queues}"


class Sleeper:
    """Puts one worker to sleep.

    Args:
        worker: who sleeps.
        stopping: asked while waiting.
        watchdog: looks after the questions that are asked before going to sleep.
    """

    def __init__(self, worker: Worker, stopping: Callable[[], bool], watchdog: Watchdog) -> None:
        self.worker = worker
        self.stopping = stopping
        self.watchdog = watchdog
        self._ear: psycopg.Connection[Any] | None = None
        self._ear_lock = threading.Lock()
        self._closed = threading.Event()
        self._prober: threading.Thread | None = None
        self._pause = _SHORTEST
        self._was_in_vain = False
        self._untold = False
        self._told = 0.0
        self._tried = 0.0

    def listen(self) -> None:
        """Open the connection that hears notifications; it is used for nothing else."""
        self.close()
        django = connections[self.worker.using]
        parameters = {
            key: value
            for key, value in django.get_connection_params().items()
            if key not in ("cursor_factory", "context", "prepare_threshold", "isolation_level")
        }
        parameters["application_name"] = application_name(",".join(sorted(self.worker.queues)))
        self._ear = psycopg.connect(**{**TCP, **parameters}, autocommit=True)
        self.watchdog.connections.append(self._ear)
        with self.watchdog.watch():
            self._ear.execute(f"LISTEN {_CHANNEL}")
        self._tried = time.monotonic()
        self._closed.clear()
        self._prober = threading.Thread(
            target=self._probe_at_work, args=[self._ear], name="bulksafe prober", daemon=True
        )
        self._prober.start()

    def close(self) -> None:
        self._closed.set()
        if self._ear is None or self._prober is None:
            return
        self._prober.join(timeout=1)
        if self._prober.is_alive():
            shut_down(self._ear)
            self._prober.join()
        self._ear.close()
        self._ear = None

    def sleep(self) -> None:
        """Wait until there may be something to do."""
        self._tell_others()
        seconds = conf.get().POLL_INTERVAL
        with transaction.atomic(using=self.worker.using):
            has_lock, has_work = self._look("sleep")
            if has_lock and not has_work:
                self._wait(seconds)
                return
        is_second = False
        if not has_lock and not has_work:
            is_second, has_work = self._look("other_sleeper")
        if is_second and not has_work:
            # That one is woken by writers, and tells the others when it has found something.
            self._wait(seconds)
        elif not has_work or self._was_in_vain:
            # Writers are about to commit, or another worker has taken what there is.
            self._wait(self._pause * random.uniform(0.5, 1.0))  # noqa: S311
            self._pause = min(self._pause * 1.5, _LONGEST)
        self._was_in_vain = has_work

    def has_worked(self) -> None:
        """The worker found something to do: do not dawdle, and let other listeners look, too.

        Writers that saw this worker awake have notified nobody.
        """
        self._pause = _SHORTEST
        self._was_in_vain = False
        self._untold = True
        if time.monotonic() - self._told > _TELLING:
            self._tell_others()

    def _tell_others(self) -> None:
        if self._untold and self._ear is not None:
            with self._ear_lock:
                self._ear.execute(f"NOTIFY {_CHANNEL}")
            self._told = time.monotonic()
        self._untold = False

    def _look(self, name: str) -> tuple[bool, bool]:
        """The answer of the query ``name``, and after that whether there is work."""
        with self.watchdog.watch():
            answer = self.worker.store.rows(name)[0][-1]
            return answer, self.worker.has_work()

    def _wait(self, seconds: float) -> None:
        """Return at a notification, at the latest after ``seconds``."""
        ear = self._ear
        if ear is None:
            raise psycopg.OperationalError("the connection for notifications is not open")
        own = ear.info.backend_pid
        end = time.monotonic() + seconds
        with self._ear_lock:
            while (left := end - time.monotonic()) > 0 and not self.stopping():
                heard = [
                    n for n in ear.notifies(timeout=min(left, _STEP), stop_after=1) if n.pid != own
                ]
                if heard:
                    return
                self._probe(ear)

    def _probe(self, ear: psycopg.Connection[Any]) -> None:
        """Try the connection that nobody waits for, if it was not tried lately."""
        if time.monotonic() - self._tried > self.watchdog.patience / 2:
            with self.watchdog.watch():
                ear.execute("SELECT 1")
            self._tried = time.monotonic()

    def _probe_at_work(self, ear: psycopg.Connection[Any]) -> None:
        """In a thread: a receiver's statement may take its time, or never be answered.

        While the worker sleeps, it has the lock and probes by itself.
        """
        while not self._closed.wait(min(1.0, self.watchdog.patience / 4)):
            if self._ear_lock.acquire(blocking=False):
                try:
                    self._probe(ear)
                except psycopg.Error:
                    return  # whoever uses it next hears of it
                finally:
                    self._ear_lock.release()
