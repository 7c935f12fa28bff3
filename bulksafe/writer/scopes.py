"""A write in progress: its properties, and its taken changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bulksafe.writer.ledger import Ledger

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.call_stack import Row
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.observing import Observer, Progress
    from bulksafe.writer.taking import Kind


Turns: TypeAlias = Literal["", "found out", "row by row"]


class Again(Exception):  # noqa: N818
    """The write must be repeated, with the database buffering its changes."""


@dataclass(eq=False)
class Returned:
    """The rows of one Django statement, returned instead of buffered.

    Attributes:
        kind: its table and operation.
        rows: the returned rows; None before the execution.
    """

    kind: Kind
    rows: list[tuple[Any, ...]] | None = None

    def is_of(self, text: str) -> bool:
        """Whether this is the statement."""
        return self.rows is None and text.startswith(self.kind.opening) and _RETURNS not in text


_RETURNS = " RETURNING "


@dataclass(eq=False)
class Scope:
    """One write, on any path.

    Attributes:
        given_fields: ``update_fields`` for receivers of updated rows.
        given_origin: ``origin`` for receivers of deleted rows.
        pending: taken changes that are not delivered yet.
        ledger: which receivers have been called for which of its rows.
        moved: the keys that new rows were stored with, by the keys that they were recorded with.
        returned: the rows that its statement returns, if it does.
        on_conflict: the handling of conflicting new rows, in the form of ``QuerySet._insert``.
        child: the model of multi-table inheritance whose rows it updates.
        observer: observes the receivers after the write.
        observers: observe the write itself, if a receiver makes it.
        progress: its progress, if its rows can be stored one by one.
        is_logged: whether Django would begin a transaction for it, which its logs have.
        turns: whether its rows are stored one by one: decided during the write, always, or never.
    """

    given_fields: frozenset[str] | None = None
    given_origin: Any = None
    pending: list[InlineChange] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    moved: dict[Row, Any] = field(default_factory=dict)
    returned: Returned | None = None
    on_conflict: dict[str, Any] = field(default_factory=dict)
    child: type[Model] | None = None
    observer: Observer | None = None
    observers: tuple[Observer, ...] = ()
    progress: Progress | None = None
    turns: Turns = ""
    is_logged: bool = False
    #: The position of the last change of each row in ``pending``.
    _places: dict[Row, int] = field(default_factory=dict)

    def reset(self) -> None:
        """Reset after a rollback, to begin again."""
        self.pending.clear()
        self.ledger = Ledger()
        self.moved.clear()
        self._places.clear()
        self.returned = self.observer = self.progress = None
        self.turns = ""

    @property
    def knows_rows(self) -> bool:
        """Whether it may add information to the changed rows."""
        return False

    def holds(self, change: InlineChange) -> bool:
        """Whether the change belongs to the write."""
        return False

    def covers(self, model: type[Model], text: str) -> bool:
        """Whether ``pre_*`` receivers of the model's rows run with objects in hand.

        Args:
            text: the statement, or its beginning.
        """
        return False

    def sends_links(self, change: InlineChange) -> bool:
        """Whether Django sends ``m2m_changed`` for a row of a many-to-many table."""
        return False

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        """Its changes whose receivers have not been called yet."""
        return [change for change in changes if not self.is_part(change)]

    def is_part(self, change: InlineChange) -> bool:
        """Whether a change is of a parent's part of a row: only the child's receivers run.

        Django sends the signals of the class that is saved, and not those of its parents.
        """
        return (
            self.child is not None
            and change.model in self.child._meta.all_parents
            and not change.deleted
            and change.event.depth == 1
        )

    def add(self, change: InlineChange) -> None:
        """Keep a change until its receivers are called.

        What a trigger writes to a row of the statement is part of the same change.
        """
        place = self._places.get(change.row, len(self.pending))
        earlier = self.pending[place] if place < len(self.pending) else None
        if earlier is not None and self.is_one_change(earlier, change):
            change.begin_with(earlier)
            change.done |= earlier.done
            self.pending[place] = change
        else:
            place = len(self.pending)
            self.pending.append(change)
        self._places[change.new_row] = place

    def is_one_change(self, earlier: InlineChange, later: InlineChange) -> bool:
        """Whether the later of two changes of a row belongs to the earlier one."""
        return later.event.depth > earlier.event.depth and is_one_write(earlier, later)

    def prepare(self, change: InlineChange) -> None:
        """Set the properties of the write on a change."""
        if change.given_fields is None and not change.created and not change.deleted:
            change.given_fields = self.given_fields
        if change.given_origin is None:
            change.given_origin = self.given_origin


@dataclass(eq=False)
class Linking(Scope):
    """A many-to-many manager at work: Django sends ``m2m_changed`` itself."""

    through: type[Model] | None = None

    def sends_links(self, change: InlineChange) -> bool:
        return self.through is change.model

    @property
    def knows_rows(self) -> bool:
        return True


def is_one_write(earlier: InlineChange, later: InlineChange) -> bool:
    """Whether the later change is a second write to the row of the earlier one."""
    is_again = not (earlier.deleted or later.created or later.deleted)
    return is_again and earlier.new_row == later.row
