"""Scopes of writes with instances in hand, which match changes to instances."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bulksafe.writer.changes import key_in_table, key_of_instance, row_of, row_of_instance
from bulksafe.writer.django_sql import insertions, update_of_one_row
from bulksafe.writer.scopes import Scope, is_one_write

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from django.db.models import Model

    from bulksafe.call_stack import Row
    from bulksafe.writer.changes import InlineChange


@dataclass(eq=False)
class InHand(Scope):
    """A write of instances.

    Attributes:
        model: the instances' concrete model.
        instances: by row.
        is_storing: whether Django is executing its own SQL.
        is_spared: whether the database need not buffer the rows that Django stores: all receivers
            are called with the instances and see nothing else.
        stored: the number of rows that Django's statements changed.
    """

    model: type[Model] | None = None
    instances: dict[Row, Model] = field(default_factory=dict)
    is_storing: bool = False
    is_spared: bool = False
    stored: int = 0
    #: By parent table: the number of instances and the rows of their parts.
    _parts: dict[type[Model], tuple[int, frozenset[Row]]] = field(default_factory=dict)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Mark the statements that store the instances."""
        before, self.is_storing = self.is_storing, True
        try:
            yield
        finally:
            self.is_storing = before

    @property
    def knows_rows(self) -> bool:
        return True

    def take(self, instances: Iterable[Model]) -> list[Row]:
        """Add instances to the write. Returns their rows."""
        listed = list(instances)
        rows = [row_of_instance(instance) for instance in listed]
        self.instances.update(zip(rows, listed, strict=True))
        return rows

    def holds(self, change: InlineChange) -> bool:
        return change.row in self.instances or change.new_row in self.instances

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        """Its changes in instance order, as for single saves."""
        places = {row: place for place, row in enumerate(self.instances)}
        last = len(places)
        return sorted(
            super().left_over(changes), key=lambda change: places.get(change.new_row, last)
        )

    def is_part(self, change: InlineChange) -> bool:
        if self.model is None or change.model not in self.model._meta.all_parents or change.deleted:
            return False
        return row_of(change.model, change.key()) in self._parts_in(change.model)

    def _parts_in(self, table: type[Model]) -> Collection[Row]:
        """The rows of the instances' parts in a parent's table."""
        count, parts = self._parts.get(table, (0, frozenset()))
        if count != len(self.instances):
            parts = frozenset(
                row_of(table, key_in_table(one, table)) for one in self.instances.values()
            )
            self._parts[table] = len(self.instances), parts
        return parts

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

    def is_own(self, text: str, params: Sequence[Any] | None) -> bool:
        """Whether a statement is the one with which Django stores the instances.

        ``pre_save()`` of a field may execute other statements meanwhile.
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

    def _parts_in(self, table: type[Model]) -> Collection[Row]:
        return () if self.instance is None else (row_of(table, key_in_table(self.instance, table)),)

    def holds(self, change: InlineChange) -> bool:
        instance = self.instance
        assert instance is not None  # noqa: S101
        model = type(instance)
        if not (
            change.model is model._meta.concrete_model or change.model in model._meta.all_parents
        ):
            return False
        return not change.deleted and change.key() == key_in_table(instance, change.model)

    def is_own(self, text: str, params: Sequence[Any] | None) -> bool:
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
            # A trigger has written to the row again: to the caller of save() this is one change.
            later.begin_with(earlier)
            later.done |= earlier.done
        if len(found) > 1:
            self.pending = [c for c in self.pending if all(c is not one for one in found[:-1])]
        return found[-1] if found else None


@dataclass(eq=False)
class Deleting(InHand):
    """``delete()``: Django has collected the instances, by model."""

    models: frozenset[type[Model]] = frozenset()
    #: The model that delete() was called for; rows of other models are deleted along with it.
    root: type[Model] | None = None
    #: The deletions among the first ``_seen`` pending changes, by row.
    _deletions: dict[Row, InlineChange] = field(default_factory=dict)
    _seen: int = 0

    @property
    def knows_rows(self) -> bool:
        return bool(self.instances)

    def left_over(self, changes: list[InlineChange]) -> list[InlineChange]:
        """Its changes in the original order: Django deletes model by model."""
        return changes

    def add(self, change: InlineChange) -> None:
        """Keep a change; no two deletions are one change."""
        self.pending.append(change)

    def covers(self, model: type[Model], text: str) -> bool:
        # Rows changed by SET_NULL are not among the instances: they are a separate update.
        is_deletion = text.lstrip()[:6].upper() == "DELETE"
        return is_deletion and model in self.models and not model._meta.auto_created

    def sends_links(self, change: InlineChange) -> bool:
        # Links removed by a cascade send no signal, as in Django.
        return change.deleted and self.root is not change.model

    def change_of(self, instance: Model) -> InlineChange | None:
        for change in self.pending[self._seen :]:
            if change.deleted:
                self._deletions[change.row] = change
        self._seen = len(self.pending)
        concrete: Any = type(instance)._meta.concrete_model
        return self._deletions.get(row_of(concrete, key_of_instance(instance)))


@dataclass(eq=False)
class Along(Scope):
    """One statement of a write of instances that may also change rows of other models.

    These are multi-table child rows in the parent's table, or rows changed by a foreign key's
    action. Their ``pre_*`` receivers run before the statement, too.
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
