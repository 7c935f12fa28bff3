"""Ends a long task when a supervisor asks for it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise an exception, as Ctrl-C does, so that the block can say where it was."""
    if threading.current_thread() is not threading.main_thread():
        # Only that one may set a handler.
        yield
        return
    is_ended = False

    def end(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal is_ended
        is_ended = True
        # psycopg cancels the current query for this exception only.
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except (Exception, KeyboardInterrupt):
        # Interrupted in a query, the connection may be left busy; what closes the transaction then
        # fails, and its error takes the place of the first one.
        if not is_ended:
            raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    if is_ended:
        raise SystemExit(128 + signal.SIGTERM)
