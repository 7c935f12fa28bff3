"""A process that serves on a database connection and reconnects for ever."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import psycopg
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connections,
)
from psycopg import IsolationLevel

from bulksafe.listener.watchdog import SERVER_TCP, Watchdog, connect

logger = logging.getLogger("bulksafe")

#: Seconds between two connection attempts: the first pause and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0

#: Seconds after which a waiting process checks whether it should stop.
STEP = 0.25

#: Otherwise the statement of a killed process continues, and holds its locks on cursors or on a
#: parked call, for which the keeper would wait. A server on Windows refuses the setting.
_NOTICE_DEAD_CLIENT = """
SELECT pg_catalog.set_config(name, '1s', false)
FROM pg_catalog.pg_settings
WHERE name = 'client_connection_check_interval'
  AND pg_catalog.version() NOT LIKE '%Visual C++%'
"""

#: The signals that end the listener.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Abandoned(BaseException):
    """A second signal: abandon the current work, and roll the transaction back."""


class Serving:
    """Runs a process until it is signalled to stop; survives lost connections and its own errors.

    Args:
        using: the database.
        must_stop: returns whether the process must stop without a signal, for example because its
            parent is gone.

    Attributes:
        on_signal: called when a signal asks the process to stop, to interrupt its waiting.
    """

    def __init__(self, using: str, must_stop: Callable[[], bool] = lambda: False) -> None:
        self.using = using
        self._must_stop = must_stop
        self.on_signal: Callable[[], None] = lambda: None
        self._signals = 0
        self._was_connected = False

    def stopping(self) -> bool:
        return self._signals > 0 or self._must_stop()

    def handle_signals(self) -> None:
        """The first SIGTERM or SIGINT ends the process after its batch, the second at once."""
        if threading.current_thread() is not threading.main_thread():
            return  # call_command() in a thread: the signals belong to the host process
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self.on_signal()
        if self._signals > 1:
            raise Abandoned

    def run(self, serve: Callable[[Watchdog], None]) -> None:
        """Call ``serve`` with an open connection, again after each error, until stopped.

        It returns when ``serve`` does.
        """
        pause = _FIRST_PAUSE
        while not self.stopping():
            watchdog = Watchdog()
            try:
                self._connect(watchdog)
                serve(watchdog)
                return
            except Abandoned:
                logger.info("abandoned the batch: it will be retried")
                return
            except Exception as error:  # a daemon continues; the error is logged
                pause = self._wait_after(error, pause)
            finally:
                watchdog.close()
                connections[self.using].close()

    def connected(self) -> None:
        """All of it works: the next error starts with the first pause again."""
        self._was_connected = True

    def _connect(self, watchdog: Watchdog) -> None:
        """A new connection at READ COMMITTED: each statement sees the latest commits."""
        close_old_connections()
        connection = connections[self.using]
        connection.close()
        connect(self.using, watchdog)
        connection.connection.isolation_level = IsolationLevel.READ_COMMITTED
        options = connection.settings_dict["OPTIONS"]
        # The server must notice soon when this end is gone: it holds the cursors' locks.
        with watchdog.watch(), connection.cursor() as cursor:
            for name in SERVER_TCP:
                value = options.get(name.removeprefix("tcp_"), options.get(name))
                cursor.execute("SELECT set_config(%s, %s, false)", [name, str(value)])
            cursor.execute(_NOTICE_DEAD_CLIENT)

    def _wait_after(self, error: Exception, pause: float) -> float:
        """Log the error, and wait.

        Args:
            pause: seconds, unless this is the first error since the last connection.

        Returns:
            the pause after the next error.
        """
        pause = _FIRST_PAUSE if self._was_connected else pause
        if isinstance(error, DatabaseError | InterfaceError | psycopg.Error):
            reason = str(error).strip().partition("\n")[0]
            lost = isinstance(error, OperationalError | InterfaceError | psycopg.OperationalError)
            fact = "no connection" if lost else "the database refuses a query"
            logger.warning("%s (%s): trying again in about %.1f s", fact, reason, pause)
            self._pause(pause * random.uniform(0.5, 1.0))  # noqa: S311
        else:
            logger.error(
                "internal error of bulksafe: this process connects again and continues",
                exc_info=error,
            )
            self._pause(_LONGEST_PAUSE if pause > 1 else pause)
        self._was_connected = False
        return min(pause * 2, _LONGEST_PAUSE)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.stopping():
            time.sleep(min(left, 0.1))
