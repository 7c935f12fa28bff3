"""A write in progress: what is known of it, and the changes that it has taken."""

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
    """A write has to be repeated, with the database buffering its changes."""


@dataclass(eq=False)
class Returned:
    """The rows of one statement of Django's own, returned by it in place of being buffered.

    Attributes:
        kind: what it does to which table.
        rows: what it has returned; None as long as it has not been executed.
    """

    kind: Kind
    rows: list[tuple[Any, ...]] | None = None

    def is_of(self, text: str) -> bool:
        """Whether this is the statement."""
        return self.rows is None and text.startswith(self.kind.opening) and _RETURNS not in text


_RETURNS = " RETURNING "


@dataclass(eq=False)
class Scope:
    """One write, by whatever path.

    Attributes:
        given_fields: what receivers get as ``update_fields`` for rows that it updates.
        given_origin: what they get as ``origin`` for rows that it deletes.
        pending: changes that were taken from the buffer and not delivered.
        ledger: which receivers have been called for which of its rows.
        moved: the keys that new rows were stored with, by the keys that they were recorded with.
        returned: the rows that its statement returns, if it is one that does.
        on_conflict: what happens to new rows that conflict, as ``QuerySet._insert`` takes it.
        child: the model of multi-table inheritance whose rows it updates.
        observer: looks at what the receivers after the write do.
        observers: look at the write itself, which a receiver makes.
        progress: how far it is, where its rows can be stored one by one.
        turns: whether its statement is executed so that rows have their turns: found out during
            the write, row by row, or not at all.
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
    #: Where the last change of each row is in ``pending``.
    _places: dict[Row, int] = field(default_factory=dict)

    def reset(self) -> None:
        """The write was rolled back, and begins again."""
        self.pending.clear()
        self.ledger = Ledger()
        self.moved.clear()
        self._places.clear()
        self.returned = self.observer = self.progress = None
        self.turns = ""

    @property
    def knows_rows(self) -> bool:
        """Whether it may add anything to what the changed rows say."""
        return False

    def holds(self, change: InlineChange) -> bool:
        """Whether the change is one that the write is about."""
        return False

    def covers(self, model: type[Model], text: str) -> bool:
        """Whether ``pre_*`` receivers of the model's rows have run, or will, on objects in hand.

        Args:
            text: the statement, or how it begins.
        """
        return False

    def sends_links(self, change: InlineChange) -> bool:
        """Whether ``m2m_changed`` for a row of a many-to-many table is Django's to send."""
        return False

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        """Those of its changes whose receivers are still to be called."""
        return [change for change in changes if not self.is_part(change)]

    def is_part(self, change: InlineChange) -> bool:
        """Whether a change belongs to a parent's part of a row: only the child's receivers run.

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
        """Add to a change what the write knows of it."""
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
    """Whether the later change writes again to the row of the earlier one."""
    is_again = not (earlier.deleted or later.created or later.deleted)
    return is_again and earlier.new_row == later.row
