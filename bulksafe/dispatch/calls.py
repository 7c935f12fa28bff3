"""One call of a receiver, for captured changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulksafe.contexts import being_called
from bulksafe.declarations.through import link_fields
from bulksafe.dispatch import arguments
from bulksafe.dispatch.calling import call

if TYPE_CHECKING:
    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.changes import Change


@dataclass(frozen=True)
class Call:
    """One call of a receiver.

    Attributes:
        receiver: the receiver to call.
        changes: one change, or several for ``batch=True`` and ``m2m_changed``.
        error: why it cannot be called, or None.
    """

    receiver: Receiver
    changes: Sequence[Change]
    error: Exception | None = None

    def __call__(self) -> None:
        """Call the receiver; its exceptions propagate.

        Raises:
            Unreadable: the event's images no longer fit the table.
            EndlessWrites: receivers react to each other endlessly.
        """
        if self.error is not None:
            raise self.error
        last = self.changes[-1]
        outer = last.calls
        with being_called(outer.plus(self.receiver.name, last.row), last.context):
            call(self.receiver.function, arguments.of_changes(self.receiver, self.changes))


def m2m_group(change: Change) -> tuple[Any, ...]:
    """The group of a through row: all rows of a group make one call of ``m2m_changed``.

    A group consists of the rows that one transaction adds to one instance.
    """
    source, _ = link_fields(change.model)
    return (
        change.event.xid,
        change.event.operation,
        change.event.bucket if change.event.parked else 0,
        change.stored(source.attname),
    )
