"""The rule of recursion: which receivers are called for a write inside calls of receivers.

A write inside a call is a write like any other, and calls the receivers of its rows, except:

=====================  =======================================  ==================================
\\                      Django sends the signal: ``save()`` or   Any other write: in bulk, or SQL
                       ``delete()`` of an object
=====================  =======================================  ==================================
A receiver's own       for the row that it is called for: not   for any row: not called
write                  called. For another row: called, as in
                       Django.
A write of another     called                                   for a row that it is being called
receiver inside it                                              for: not called. For another row:
                                                                called
A write that changes   not called again for a row that it is    not called
no value               being called for
Does not settle        ``EndlessWrites`` after 16 calls for     ``EndlessWrites`` after 16 calls
                       one row, or 50 calls and a new row
=====================  =======================================  ==================================

So ``save()`` may go down a tree, and receivers that maintain each other converge. With plain
signals, an ``update()`` inside a receiver calls none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bulksafe.call_stack import Calls
from bulksafe.dispatch import muting
from bulksafe.exceptions import EndlessWrites

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.call_stack import Row
    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.changes import Change

#: The maximum depth of nested calls; for signals that Django sends, the maximum for one row.
MOST_CALLS = 16

#: The maximum depth of nested calls that each lead to a new row. Existing rows are finite in
#: number, so a chain of existing rows ends or returns to a row.
MOST_NEW_ROWS = 50


class Write(NamedTuple):
    """A write of one row. A tuple for speed: one is created for each call of a receiver.

    Attributes:
        calls: the calls in which it was made.
        model: of the row.
        row: identifies it.
        change: the captured change; None before it is captured.
        is_sent: whether Django sends the signal, for an object that is saved or deleted.
        is_new: whether that object is a new row.
    """

    calls: Calls
    model: type[Model]
    row: Row
    change: Change | None = None
    is_sent: bool = False
    is_new: bool = False

    @classmethod
    def of(cls, change: Change) -> Write:
        """The captured write of a row."""
        return cls(change.calls, change.model, change.row, change)

    @property
    def is_noop(self) -> bool:
        """Whether it is known to change no value."""
        return self.change is not None and self.change.is_noop


def is_called(receiver: Receiver, write: Write) -> bool:
    """Whether a receiver of the row is called for a write."""
    if muting.is_muted(receiver):
        return False
    calls = write.calls
    if not calls.names:
        return True
    is_innermost = calls.names[-1] == receiver.name
    is_called_for_row = calls.count(receiver.name, write.row) > 0
    if not write.is_sent:
        return not (is_innermost or is_called_for_row or write.is_noop)
    if not is_called_for_row:
        return True
    return not (is_innermost and calls.rows[-1] == write.row) and not write.is_noop


def endless(receiver: Receiver, write: Write) -> EndlessWrites | None:
    """The error in place of a call, if receivers react to each other without end."""
    calls = write.calls
    if len(calls.names) < MOST_CALLS:
        return None
    if write.is_sent:
        is_endless = calls.count(receiver.name, write.row) >= MOST_CALLS or (
            write.is_new and len(calls) >= MOST_NEW_ROWS
        )
        if not is_endless:
            return None
    # The later half, which excludes the calls that led into the cycle.
    circle = " → ".join(dict.fromkeys(calls.names[len(calls) // 2 :]))
    label, change = (write.model._meta.concrete_model or write.model)._meta.label, write.change
    changed = "" if change is None else f", where {_listed(change.changed)} changed"
    return EndlessWrites(
        f"Receivers react to each other's writes without end: {circle}. "
        f"The last write is to {label} {write.row[1]}{changed}."
    )


def must_call(receiver: Receiver, write: Write) -> bool:
    """``is_called()``, for a receiver that is called at once.

    Raises:
        EndlessWrites: receivers react to each other without end.
    """
    if not is_called(receiver, write):
        return False
    if write.calls.names and (error := endless(receiver, write)) is not None:
        raise error
    return True


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
