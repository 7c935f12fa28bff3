"""A write in progress: what is known of it, and of which rows it has the instances in hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bulksafe.writer.changes import key_in_table, key_of_instance, row_of, row_of_instance
from bulksafe.writer.django_sql import insertions, update_of_one_row
from bulksafe.writer.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from django.db.models import Model

    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.observing import Observer, Progress
    from bulksafe.writer.taking import Kind


Turns: TypeAlias = Literal["", "found out", "row by row"]


class Again(Exception):  # noqa: N818
    """A write has to be made once more, with the database buffering what it changes."""


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
        pending: changes that were taken and have not been delivered.
        ledger: who has been called for which of its rows.
        moved: the keys that new rows got in the end, by those that they were recorded with.
        returned: the rows that its statement returns, if it is one that does.
        on_conflict: what its new rows do that are there already, as ``QuerySet._insert`` takes it.
        child: the model of multi-table inheritance whose rows it updates.
        observer: looks at what the receivers of its rows do that come after the write.
        observers: those that look at the write itself: it is made by a receiver.
        progress: how far it is, where its rows can be stored one by one.
        turns: whether its statement is to be executed so that rows have their turns: as is found
            out then, row by row, or not at all.
    """

    given_fields: frozenset[str] | None = None
    given_origin: Any = None
    pending: list[InlineChange] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    moved: dict[tuple[str, Any], Any] = field(default_factory=dict)
    returned: Returned | None = None
    on_conflict: dict[str, Any] = field(default_factory=dict)
    child: type[Model] | None = None
    observer: Observer | None = None
    observers: tuple[Observer, ...] = ()
    progress: Progress | None = None
    turns: Turns = ""
    #: Where the last change of each row is in ``pending``.
    _places: dict[tuple[str, Any], int] = field(default_factory=dict)

    def reset(self) -> None:
        """The write is made again: what has come of it is taken back."""
        self.pending.clear()
        self.ledger = Ledger()
        self.moved.clear()
        self._places.clear()
        self.returned = self.observer = self.progress = None
        self.turns = ""

    @property
    def knows_rows(self) -> bool:
        """Whether it may have anything to say of the rows that change."""
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

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        """Those of its changes that are its own to deliver."""
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
        """Say of a change what the write knows of it."""
        if change.given_fields is None and not change.created and not change.deleted:
            change.given_fields = self.given_fields
        if change.given_origin is None:
            change.given_origin = self.given_origin


@dataclass(eq=False)
class InHand(Scope):
    """A write of instances.

    Attributes:
        model: the instances' concrete model.
        instances: by row.
        is_storing: whether Django is at its SQL just now, and nobody else.
        is_spared: whether the database need not buffer what Django stores: all receivers are called
            with the instances and see nothing else.
        stored: how many rows Django's statements have changed.
    """

    model: type[Model] | None = None
    instances: dict[tuple[str, Any], Model] = field(default_factory=dict)
    is_storing: bool = False
    is_spared: bool = False
    stored: int = 0
    #: By parent's table, how many instances there were and the keys of their parts.
    _part_keys: dict[type[Model], tuple[int, frozenset[Any]]] = field(default_factory=dict)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Around what stores the instances."""
        before, self.is_storing = self.is_storing, True
        try:
            yield
        finally:
            self.is_storing = before

    @property
    def knows_rows(self) -> bool:
        return True

    def take(self, instances: Iterable[Model]) -> None:
        for instance in instances:
            self.instances[row_of_instance(instance)] = instance

    def holds(self, change: InlineChange) -> bool:
        return change.row in self.instances or change.new_row in self.instances

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        """Its changes in the order of the instances, which is that of saves one by one."""
        places = {row: place for place, row in enumerate(self.instances)}
        last = len(places)
        return sorted(
            super().left_over(changes), key=lambda change: places.get(change.new_row, last)
        )

    def is_part(self, change: InlineChange) -> bool:
        if self.model is None or change.model not in self.model._meta.all_parents or change.deleted:
            return False
        return change.key() in self._keys_in(change.model)

    def _keys_in(self, table: type[Model]) -> Collection[Any]:
        """The keys of the instances' parts in a parent's table."""
        count, keys = self._part_keys.get(table, (0, frozenset()))
        if count != len(self.instances):
            keys = frozenset(key_in_table(one, table) for one in self.instances.values())
            self._part_keys[table] = len(self.instances), keys
        return keys

    def is_one_change(self, earlier: InlineChange, later: InlineChange) -> bool:
        # Of a row in multi-table inheritance the buffer is also emptied between Django's
        # statements for the two tables, for instance because a receiver of another child comes
        # before the one on the parent's table.
        return is_one_write(earlier, later)

    def covers(self, model: type[Model], text: str) -> bool:
        return (
            self.is_storing
            and self.model is not None
            and (model is self.model or model in self.model._meta.all_parents)
        )

    def is_own(self, text: str, params: Any) -> bool:
        """Whether a statement is the one with which Django stores the instances.

        ``pre_save()`` of a field may make others while it does.
        """
        return self.model is not None and text.startswith(insertions(self.model))

    def prepare(self, change: InlineChange) -> None:
        super().prepare(change)
        row = change.new_row
        if row not in self.instances:
            row = change.row
        instance = self.instances.get(row)
        if instance is not None:
            if not change.is_in_hand and type(instance)._meta.concrete_model is change.model:
                change.take_in_hand(instance)
            change.done |= self.ledger.called_for(instance)


@dataclass(eq=False)
class Saving(InHand):
    """``save()``: one row, which may be without a key until it is stored."""

    instance: Model | None = None

    def _keys_in(self, table: type[Model]) -> Collection[Any]:
        return () if self.instance is None else (key_in_table(self.instance, table),)

    def holds(self, change: InlineChange) -> bool:
        instance = self.instance
        assert instance is not None  # noqa: S101
        model = type(instance)
        if not (
            change.model is model._meta.concrete_model or change.model in model._meta.all_parents
        ):
            return False
        return not change.deleted and change.key() == key_in_table(instance, change.model)

    def is_own(self, text: str, params: Any) -> bool:
        if super().is_own(text, params):
            return True
        assert self.model is not None and self.instance is not None  # noqa: S101, PT018
        pattern = update_of_one_row(self.model)
        if pattern is None or not params or pattern.match(text) is None:
            return False
        return str(params[-1]) == str(key_of_instance(self.instance))

    def prepare(self, change: InlineChange) -> None:
        Scope.prepare(self, change)
        if not self.holds(change):
            return
        assert self.instance is not None  # noqa: S101
        if change.model is type(self.instance)._meta.concrete_model:
            change.take_in_hand(self.instance)
        change.done |= self.ledger.called_for(self.instance)

    def change_of_instance(self) -> InlineChange | None:
        assert self.instance is not None  # noqa: S101
        model = type(self.instance)._meta.concrete_model
        found = [c for c in self.pending if c.model is model and self.holds(c)]
        for earlier, later in pairwise(found):
            # A trigger has written to the row again: this is one change to whoever saves.
            later.begin_with(earlier)
            later.done |= earlier.done
        if len(found) > 1:
            self.pending = [c for c in self.pending if all(c is not one for one in found[:-1])]
        return found[-1] if found else None


@dataclass(eq=False)
class Deleting(InHand):
    """``delete()``: Django has collected the instances, by model."""

    models: frozenset[type[Model]] = frozenset()
    #: The model that it was called for: rows of others are deleted along with it.
    root: type[Model] | None = None
    #: The changes that were looked at, by row, and how many of those that are pending they are.
    _deletions: dict[tuple[str, Any], InlineChange] = field(default_factory=dict)
    _seen: int = 0

    @property
    def knows_rows(self) -> bool:
        return bool(self.instances)

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        """Its changes as they came: Django deletes model by model."""
        return changes

    def add(self, change: InlineChange) -> None:
        """Keep a change; deletions are never made of several."""
        self.pending.append(change)

    def covers(self, model: type[Model], text: str) -> bool:
        # Rows that SET_NULL changes are not among the instances: they are an update of their own.
        is_deletion = text.lstrip()[:6].upper() == "DELETE"
        return is_deletion and model in self.models and not model._meta.auto_created

    def change_of(self, instance: Model) -> InlineChange | None:
        for change in self.pending[self._seen :]:
            if change.deleted:
                self._deletions[change.row] = change
        self._seen = len(self.pending)
        concrete: Any = type(instance)._meta.concrete_model
        return self._deletions.get(row_of(concrete, key_of_instance(instance)))


@dataclass(eq=False)
class Along(Scope):
    """One statement of a write of instances, which may change rows of other models along with them.

    Of a child in multi-table inheritance, whose rows lie in the table of the parent, or of a table
    that a foreign key's action reaches: their receivers come before it, too.
    """

    outer: InHand = field(default_factory=InHand)

    def is_part(self, change: InlineChange) -> bool:
        return self.outer.is_part(change)

    def prepare(self, change: InlineChange) -> None:
        super().prepare(change)
        if self.outer.holds(change):
            self.outer.prepare(change)
            # An execution that is rolled back must not touch the caller's instance.
            change.forget_instances()

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        held = [change for change in changes if self.outer.holds(change)]
        for change in held:
            change.forget_instances()
            self.outer.prepare(change)
        for change in held:
            self.outer.add(change)
        return super().left_over([change for change in changes if not self.outer.holds(change)])


@dataclass(eq=False)
class Linking(Scope):
    """A many-to-many manager at work: Django sends ``m2m_changed`` itself."""

    through: type[Model] | None = None

    @property
    def knows_rows(self) -> bool:
        return True


def is_one_write(earlier: InlineChange, later: InlineChange) -> bool:
    """Whether the later change writes again to the row of the earlier one."""
    is_again = not (earlier.deleted or later.created or later.deleted)
    return is_again and earlier.new_row == later.row
