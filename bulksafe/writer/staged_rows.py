"""One row of a collected write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulksafe.dispatch.assigning import assign
from bulksafe.writer.applying import Applying, Assigned
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.early import assigned_since
from bulksafe.writer.instances import as_before_the_insert, copied_values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

    from bulksafe.call_stack import Row as RowName
    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.images import Image
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.ledger import Ledger


@dataclass(eq=False, slots=True)
class Row:
    """A row to be written.

    Attributes:
        number: its number among the staged rows.
        applying: writes the rows of its table.
        change: the row before and after the statement.
        ledger: the ledger of the write.
        written: the names of the fields that the statement writes.
        instance: the receivers' instance; None before the first call.
        before: the values of the instance before the first receiver.
        is_gone: whether it has been deleted since.
        taken: the columns that get the collected value, for a row that was read again; None for
            columns that differ from the collected row.
    """

    number: int
    applying: Applying
    change: InlineChange
    ledger: Ledger
    written: frozenset[str] = frozenset()
    instance: Model | None = None
    before: dict[str, Any] = field(default_factory=dict)
    is_gone: bool = False
    taken: frozenset[str] | None = None
    #: Whether Django gives the updated fields.
    _is_given: bool = False

    def __post_init__(self) -> None:
        change = self.change
        if not (change.created or change.deleted):
            self._is_given = change.given_fields is not None
            self.written = change.given_fields or self._named()
            self._say_what_is_updated()

    def _named(self) -> frozenset[str]:
        """The fields whose columns the statement sets."""
        columns = set(self.applying.statement.assigned)
        return frozenset(one.name for one in self.change.table.fields if one.column in columns)

    def _say_what_is_updated(self) -> None:
        """Set ``update_fields`` to the statement's fields, regardless of receivers' assignments."""
        if not self._is_given:
            self.change.given_fields = self.change.changed

    def begin(self, receiver: Receiver) -> None:
        """Prepare for a call of a receiver before the write."""
        if self.instance is None:
            self._make_instance()
        assert self.instance is not None  # noqa: S101
        self.ledger.note(receiver, self.instance)

    def _make_instance(self) -> None:
        self.instance = instance = self.change.instance
        if self.change.created:
            as_before_the_insert(instance, has_key=self._has_key)
            for one in instance._meta.concrete_fields:
                if one.generated:
                    instance.__dict__.pop(one.attname, None)
        self.before = copied_values(instance, self.change.table.attnames)

    @property
    def _has_key(self) -> bool:
        """Whether the statement gives a new row its key."""
        keys = [str(key.column) for key in self.change.model._meta.pk_fields]
        return self.applying.statement.inserts(keys)

    def begin_with(self, old: Image, new: Image | None) -> None:
        """Replace the old state: the row has changed since it was collected."""
        self.instance = None
        self.change.replace_images(old, new)
        if new is not None:
            self._say_what_is_updated()
            if not self._is_given:
                changed = self.change.changed
                fields = self.change.table.fields
                self.taken = frozenset(f.column for f in fields if f.name in changed)

    def assigned(self) -> set[str]:
        """The stored attributes that receivers assigned."""
        if self.instance is None:
            return set()
        found = assigned_since(self.instance, self.before)
        meta = self.instance._meta
        if not self.change.created:
            # The statement may change the key of a row, receivers may not.
            found -= {key.attname for key in meta.pk_fields}
        return found - {one.attname for one in meta.concrete_fields if one.generated}

    @property
    def is_saved(self) -> bool:
        """Whether a receiver has saved the instance of a new row itself."""
        instance = self.instance
        return instance is not None and self.change.created and not instance._state.adding

    def save(self, using: str) -> None:
        """Finish a ``save()`` whose instance a receiver has saved already."""
        instance: Any = self.instance
        instance._save_table(cls=type(instance), using=using)

    @property
    def stored_row(self) -> RowName:
        """The identity of the row after the write."""
        if self.instance is not None and self.change.created and self.instance.pk is not None:
            return row_of_instance(self.instance)
        return self.change.row

    def carry_to(self, change: InlineChange) -> None:
        """Pass the instance of the receivers before the write to those after it.

        Args:
            change: the captured change.
        """
        change.given_fields = self.change.given_fields
        instance = self.instance
        if instance is None:
            return
        change.take_in_hand(instance)
        change.done |= self.ledger.called_for(instance)
        made, seen = change.new_image, self.change.new_image
        if made is None or seen is None:
            return
        # Values set by the database since: by triggers and expressions.
        assigned = {n for n in self.assigned() if not _is_expression(getattr(instance, n))}
        different = change.table.differing(seen.values, made.values)
        if change.created:
            names = {f.attname for f in change.table.fields if f.primary_key or f.generated}
            values = zip(change.table.attnames, change.table.converted(made.values), strict=True)
            different |= {name: value for name, value in values if name in names}
        assign(instance, {n: value for n, value in different.items() if n not in assigned})
        if change.created:
            instance._state.adding = False
            instance._state.db = change.using

    def return_to_before(self) -> None:
        """Undo the write after a rollback."""
        if self.instance is not None and self.change.created:
            as_before_the_insert(self.instance, has_key=self._has_key)


def _is_expression(value: object) -> bool:
    return hasattr(value, "resolve_expression")


def assigned_to(
    rows: Iterable[Row],
) -> tuple[list[Assigned], list[tuple[Model, set[str], Any]]]:
    """The receivers' assignments: values, and expressions, which Django must compile."""
    values, expressions = [], []
    for row in rows:
        names, instance = row.assigned(), row.instance
        later = {n for n in names if _is_expression(getattr(instance, n))}
        if names - later or row.taken is not None:
            given = row.change.instance if instance is None else instance
            values.append(Assigned(row.number, given, names - later, row.taken))
        if later and instance is not None:
            expressions.append((instance, later, row.change.key()))
    return values, expressions
