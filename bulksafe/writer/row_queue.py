"""Writes the rows of one write, in bulk as far as their receivers allow."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from bulksafe import call_stack

if TYPE_CHECKING:
    from bulksafe.declarations import Receiver
    from bulksafe.writer.conflicts import Conflicts
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session

logger = logging.getLogger("bulksafe")

#: How many rows may be written one by one to learn which tables receivers touch.
_LEARNING = 8

#: The number of rows written one by one after which a warning names the receiver.
_MANY = 100
_named: WeakSet[Receiver] = WeakSet()


class Rows(Protocol):
    """The ordered rows of a write, with methods to write them."""

    def __len__(self) -> int: ...

    def before(self, place: int) -> None:
        """Call the receivers before the write of one row."""

    def store(self, start: int, end: int) -> None:
        """Write rows, and call the receivers after the write."""

    def mark(self) -> Any:
        """The progress of the rows, except for the number of written ones."""

    def return_to(self, mark: Any, start: int, end: int) -> None:
        """Return to a mark: the database has rolled back later writes."""


class InBulk:
    """The progress of a write whose rows are all written at once."""

    is_ahead = True

    def flush(self) -> bool:
        return False

    def mark(self) -> None:
        """No partial writes."""

    def return_to(self, mark: None) -> None:
        """No partial rollbacks."""


class RowQueue:
    """Processes the rows of one write.

    Until the receivers after the write are known, each row is written and delivered separately. If
    a receiver before the write is about to touch data changed by earlier rows, these are written
    first. If receivers after the write read the table, each row is written before the next one's
    receivers run.

    Args:
        session: the connection's.
        scope: the write.
        rows: the rows of the write.
        conflicts: the dependencies of its receivers.
        is_row_by_row: whether each row is always written separately.
        is_whole: whether the first row must be written with the others.
    """

    def __init__(
        self,
        session: Session,
        scope: Scope,
        rows: Rows,
        conflicts: Conflicts,
        *,
        is_row_by_row: bool,
        is_whole: bool = False,
    ) -> None:
        self.session = session
        self.scope = scope
        self.rows = rows
        self.conflicts = conflicts
        #: The number of written rows.
        self.done = 0
        self._is_row_by_row = is_row_by_row
        self._is_whole = is_whole
        self._next = 0
        self._depth = call_stack.depth()
        self._is_many = False
        #: The number of rows written one by one without a receiver's ``row_by_row=True``.
        self._singles = 0

    @property
    def is_in_order(self) -> bool:
        """Whether each row is written before the receivers of the next one run."""
        return self._is_row_by_row or self.conflicts.is_row_by_row

    def run(self) -> None:
        """Process the rows: all of the write, or its next chunk."""
        self.done = 0
        count = len(self.rows)
        for place in range(count):
            self._next = place
            self.rows.before(place)
            # A row that is left out, or meets no condition, gives no information.
            learns = place < _LEARNING and not self._is_whole and self.conflicts.has_unknown
            if learns or self.is_in_order:
                self.store_up_to(place + 1)
        self.store_up_to(count)
        if self._singles > _MANY:
            self._name_receivers()

    def store_up_to(self, end: int) -> None:
        start = self.done
        if start >= end:
            return
        # Set before they are written: a flush by one of their receivers must not store them again.
        self.done = end
        self._is_many = end - start > 1
        self._singles += not (self._is_many or self._is_row_by_row)
        self.rows.store(start, end)

    # For the observers of its receivers.

    @property
    def is_ahead(self) -> bool:
        return self._is_many

    def flush(self) -> bool:
        if self.done >= self._next:
            return False
        with call_stack.outside(self._depth), self.session.as_scope(self.scope):
            self.store_up_to(self._next)
        return True

    def mark(self) -> Any:
        return self.done, self.rows.mark()

    def return_to(self, mark: Any) -> None:
        before, self.done = self.done, mark[0]
        self.rows.return_to(mark[1], self.done, before)

    def _name_receivers(self) -> None:
        for receiver in self.conflicts.dependent():
            if receiver not in _named:
                _named.add(receiver)
                logger.warning(
                    "%s reads or writes rows other than its own: %s rows of %s were written one by "
                    "one. If the order makes no difference to it, write row_by_row=False.",
                    receiver.name,
                    self._singles,
                    self.conflicts.model._meta.label,
                )
