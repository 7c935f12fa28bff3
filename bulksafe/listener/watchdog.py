"""Ends connections whose server does not answer."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("bulksafe")

#: Seconds that the server may take to say whether there is work.
PATIENCE = 30.0


class Watchdog:
    """A thread that looks whether a question to the server has been open for too long.

    A peer that is gone without a word is noticed by TCP, but a proxy in between may keep the
    connection alive that has lost its other end. Shutting the socket down makes the pending call
    fail as if the server had closed it.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._watched: tuple[float, Any] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulksafe watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watch(self, connection: Any) -> Iterator[None]:
        """The block asks the server something on psycopg's ``connection``."""
        self._watched = time.monotonic() + self.patience, connection
        try:
            yield
        finally:
            self._watched = None

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(min(1.0, self.patience / 4)):
            watched = self._watched
            if watched is not None and time.monotonic() > watched[0]:
                self._watched = None
                self._cut(watched[1])

    def _cut(self, connection: Any) -> None:
        logger.warning("the server has not answered for %.0f s: reconnecting", self.patience)
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as dead:
            dead.shutdown(socket.SHUT_RDWR)
