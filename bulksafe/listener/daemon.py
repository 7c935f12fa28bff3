"""One process that delivers events until it is told to stop."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connections,
)
from psycopg import IsolationLevel

from bulksafe.dispatch.worker import Worker
from bulksafe.listener.waking import Sleeper
from bulksafe.listener.watchdog import SERVER_TCP, Watchdog, connect
from bulksafe.outbox import keeping, parking, rebasing

if TYPE_CHECKING:
    from collections.abc import Collection

logger = logging.getLogger("bulksafe")

#: Seconds between two attempts to connect: the first, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0
#: Seconds between two looks at the slots of the outbox.
_TIDY = 5.0


class Abandoned(BaseException):
    """A second signal: give up what is being done, and let the transaction roll back."""


@dataclass
class Pulse:
    """What there is to say about a process, for ``/healthz``.

    Attributes:
        beat: when the process last went round its loop, as ``time.time()``.
        connected: whether it has a connection.
        delivered, failed: how many calls it made.
    """

    beat: float = field(default_factory=time.time)
    connected: bool = False
    delivered: int = 0
    failed: int = 0


@dataclass
class Daemon:
    """Delivers the events of some queues.

    Attributes:
        using: the database.
        queues: the queues' names.
        once: end when there is nothing left to do.
        orphaned: asked whether the process that started this one is gone.
        pulse: kept up to date.
    """

    using: str
    queues: Collection[str]
    once: bool = False
    orphaned: Callable[[], bool] = lambda: False
    pulse: Pulse = field(default_factory=Pulse)
    _signals: int = 0
    _tidied: float = 0.0

    def stopping(self) -> bool:
        return self._signals > 0 or self.orphaned()

    def handle_signals(self) -> None:
        """The first SIGTERM or SIGINT ends the process after its batch, the second at once."""
        if threading.current_thread() is not threading.main_thread():
            return  # call_command() in a thread of somebody else's process, whose signals they are
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        if self._signals == 1:
            logger.info("%s: finishing the batch", signal.Signals(number).name)
        else:
            raise Abandoned

    def run(self) -> int:
        """Deliver until told to stop; reconnect for ever.

        Returns:
            how many calls failed.
        """
        pause = _FIRST_PAUSE
        while not self.stopping():
            worker = Worker(self.using, self.queues, stopping=self.stopping)
            try:
                self._serve(worker)
            except Abandoned:
                logger.info("gave up the batch: it will be done again")
                break
            except Exception as error:  # a daemon goes on; what happened is logged
                if self.once:
                    raise
                pause = self._wait_after(error, pause)
            finally:
                self.pulse.connected = False
                connections[self.using].close()
            if self.once:
                break
        logger.info("stopped after %d calls", self.pulse.delivered)
        return self.pulse.failed

    def _wait_after(self, error: Exception, pause: float) -> float:
        """Say what happened, and wait.

        Args:
            pause: seconds, if this is not the first error since there was a connection.

        Returns:
            the pause after the next error.
        """
        if isinstance(error, DatabaseError | InterfaceError | psycopg.Error):
            pause = _FIRST_PAUSE if self.pulse.connected else pause
            reason = str(error).strip().partition("\n")[0]
            lost = isinstance(error, OperationalError | InterfaceError | psycopg.OperationalError)
            fact = "no connection" if lost else "the database refuses a query"
            self.pulse.connected = False
            logger.warning("%s (%s): trying again in about %.1f s", fact, reason, pause)
            self._pause(pause * random.uniform(0.5, 1.0))  # noqa: S311
        else:
            logger.error("the listener goes on after an error of its own", exc_info=error)
            self._pause(_LONGEST_PAUSE if pause > 1 else pause)
        return min(pause * 2, _LONGEST_PAUSE)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.stopping():
            self.pulse.beat = time.time()
            time.sleep(min(left, 0.1))

    def _serve(self, worker: Worker) -> None:
        watchdog = Watchdog()
        worker.guard = watchdog.watch
        sleeper = Sleeper(worker, self.stopping, watchdog)
        try:
            self._connect(watchdog)
            if not self.once:
                sleeper.listen()
            rebasing.rebase(worker.store)
            parking.adopt_orphans(worker.store)
            self.pulse.connected = True
            logger.info("listening for %s on %r", ", ".join(sorted(self.queues)), self.using)
            while not self.stopping():
                done = worker.work()
                self._note(worker)
                self._tidy(worker)
                self._close_unusable()
                if done:
                    sleeper.has_worked()
                elif self.once and not worker.has_work():
                    return
                elif self.once:
                    # Another listener has it: what it leaves is done here.
                    self._pause(_FIRST_PAUSE)
                else:
                    sleeper.sleep()
        finally:
            sleeper.close()
            watchdog.close()

    def _connect(self, watchdog: Watchdog) -> None:
        """A new connection, at READ COMMITTED: each statement sees what is committed by then."""
        close_old_connections()
        connection = connections[self.using]
        connection.close()
        connect(self.using, watchdog)
        connection.connection.isolation_level = IsolationLevel.READ_COMMITTED
        options = connection.settings_dict["OPTIONS"]
        # The server, too, is to notice soon when this end is gone: it holds the cursors' locks.
        with watchdog.watch(), connection.cursor() as cursor:
            for name in SERVER_TCP:
                value = options.get(name.removeprefix("tcp_"), options.get(name))
                cursor.execute("SELECT set_config(%s, %s, false)", [name, str(value)])

    def _note(self, worker: Worker) -> None:
        self.pulse.beat = time.time()
        caller = worker.caller
        self.pulse.delivered += caller.delivered
        self.pulse.failed += caller.failed
        caller.delivered = caller.failed = 0

    def _close_unusable(self) -> None:
        """What Django does between two requests: receivers may use other databases, too."""
        for connection in connections.all(initialized_only=True):
            if connection.alias != self.using:
                connection.close_if_unusable_or_obsolete()

    def _tidy(self, worker: Worker) -> None:
        if time.monotonic() - self._tidied > _TIDY:
            keeping.tidy(worker.store)
            self._tidied = time.monotonic()
