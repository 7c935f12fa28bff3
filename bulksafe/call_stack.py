"""The stack of receiver calls in progress in a thread, each triggered by a write of the last.

The writer and the listener share one stack. An event stores the names of the receivers in whose
calls it was written; the listener puts them on its stack.
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
        rows: the rows that they are called for; None for a call taken over from an event.
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
        """The number of calls of this receiver for the row."""
        return list(zip(self.names, self.rows, strict=True)).count((name, row))


NO_CALLS = Calls()


class _Here(threading.local):
    """A thread's own stack, and not one of a ``contextvars.Context``.

    A write in a thread that a receiver starts is not the receiver's own: the thread has its own
    connections and may outlive the call.
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
    """Temporarily remove the calls below a depth, to finish the write that they wait for.

    Args:
        depth: how many calls remain.
    """
    before = replace(_here.calls.first(depth))
    try:
        yield
    finally:
        _here.calls = before
