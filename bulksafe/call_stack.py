"""The calls of receivers in progress in a thread, each made because of a write of the one before.

One stack for the writer and the listener. A listener takes over the calls that an event's write was
made in, of which it knows the names.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: Identifies a row: the label of the model, and the primary key.
Row = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls in progress, the outermost first.

    Attributes:
        names: the names of the receivers.
        rows: the rows that they are called for; None for a call that an event names.
    """

    names: tuple[str, ...] = ()
    rows: tuple[Row | None, ...] = ()

    @classmethod
    def of_names(cls, names: tuple[str, ...]) -> Calls:
        return cls(names, (None,) * len(names)) if names else NO_CALLS

    def __len__(self) -> int:
        return len(self.names)

    def plus(self, name: str, row: Row) -> Calls:
        return Calls((*self.names, name), (*self.rows, row))

    def first(self, count: int) -> Calls:
        return Calls(self.names[:count], self.rows[:count])

    def count(self, name: str, row: Row) -> int:
        """How many of them are calls of the receiver for the row."""
        return list(zip(self.names, self.rows, strict=True)).count((name, row))


NO_CALLS = Calls()


class _Here(threading.local):
    """A thread's own stack, and not one of a ``contextvars.Context``.

    What a receiver hands to another thread is not the receiver's own write: the thread has
    connections of its own, and may outlast the call.
    """

    calls = NO_CALLS


_here = _Here()


def calls() -> Calls:
    """The calls in progress in this thread."""
    return _here.calls


def running() -> tuple[str, ...]:
    """The names of the receivers that are being called in this thread, the outermost first."""
    return _here.calls.names


def depth() -> int:
    return len(_here.calls.names)


def replace(calls: Calls) -> Calls:
    """Replace the stack. Returns the one before, which must be put back."""
    before, _here.calls = _here.calls, calls
    return before


@contextmanager
def outside(depth: int) -> Iterator[None]:
    """Leave the calls below a depth for a while, to do what their write must do before they go on.

    Args:
        depth: how many calls remain.
    """
    before = replace(_here.calls.first(depth))
    try:
        yield
    finally:
        _here.calls = before
