"""``bulk_create(update_conflicts=True)``: an object is inserted, or updates a stored row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import Model

from bulksafe.caching import forever, per_model
from bulksafe.hidden import hidden
from bulksafe.rendering import quoting
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.in_hand import BulkWrite
from bulksafe.writer.instances import take_over
from bulksafe.writer.matching import find
from bulksafe.writer.retrying import MOST_DEADLOCKS, Deadlock, beginning_again_after_deadlocks
from bulksafe.writer.storing import store

if TYPE_CHECKING:
    from django.db.models import Field

    from bulksafe.writer.observing import Restart
    from bulksafe.writer.session import Session


@per_model(forever)
def unique_sets(model: type[Model]) -> frozenset[frozenset[Field[Any, Any]]]:
    """The sets of fields that the model declares unique, as an upsert may name them."""
    meta: Any = model._meta
    unique = [
        constraint for constraint in meta.total_unique_constraints if not constraint.deferrable
    ]
    named = [*meta.unique_together, *(constraint.fields for constraint in unique)]
    sets: list[Iterable[Field[Any, Any]]] = [meta.pk_fields]
    sets += [[field] for field in meta.concrete_fields if field.unique]
    sets += [[meta.get_field(name) for name in names] for names in named]
    return frozenset(map(frozenset, sets))


class Upsert(BulkWrite):
    """A write of objects, some of which exist as rows.

    Receivers of an existing row get the stored row with the new values assigned.

    Args:
        insert: Django's own method to write some of the objects.
        fields: the fields that are updated in an existing row.
        unique: the fields that identify an existing row.
    """

    def __init__(
        self,
        session: Session,
        model: type[Model],
        instances: Sequence[Model],
        insert: Callable[[Sequence[Model]], Any],
        *,
        fields: Sequence[Field[Any, Any]],
        unique: Sequence[Field[Any, Any]],
    ) -> None:
        super().__init__(session, model, instances, None, insert)
        self._fields = fields
        self._unique = unique
        self.given_fields = self._names = frozenset(field.name for field in fields)
        #: The stored rows, by the positions of the objects.
        self._rows: dict[int, Model] = {}
        #: The positions of objects for the row of an object before them.
        self._repeated: set[int] = set()
        self._deadlocks = 0

    @property
    def may_begin_again(self) -> bool:
        # Single saves, and one INSERT, lock each row when they come to it. Here the stored ones
        # are locked first, and so another write may wait for these and hold a new one.
        return True

    def begin_again(self, restart: Restart, *, is_row_by_row: bool) -> bool:
        if not isinstance(restart, Deadlock):
            return super().begin_again(restart, is_row_by_row=is_row_by_row)
        self._deadlocks += 1
        if self._deadlocks > MOST_DEADLOCKS:
            raise restart.error
        return is_row_by_row

    def begin(self) -> None:
        self._check_unique_fields()
        self._rows.clear()
        self._repeated.clear()
        self._look_up(range(len(self.instances)))

    def _check_unique_fields(self) -> None:
        """Let PostgreSQL refuse fields that no unique index covers.

        If all objects exist as rows, no INSERT is executed that it would refuse.

        Raises:
            ProgrammingError: no unique or exclusion constraint covers the fields.
        """
        if frozenset(self._unique) in unique_sets(self.model):
            return
        connection = self.session.connection
        table = quoting.relation(self.model._meta.db_table)
        columns = ", ".join(quoting.identifier(str(field.column)) for field in self._unique)
        insert = f"INSERT INTO {table} DEFAULT VALUES"
        text = f"EXPLAIN {insert} ON CONFLICT ({columns}) DO NOTHING".replace("%", "%%")
        with hidden(connection), connection.cursor() as cursor:
            cursor.execute(text, [])

    def before(self, place: int) -> None:
        if place in self._repeated:
            # An object before it stores the row.
            self.progress.flush()
        if self._is_begun:
            # Receivers of the objects before it may have stored such a row, or deleted it.
            self._rows.pop(place, None)
            self._look_up([place])
        self.calls.call_early(self._subject(place), is_begun=True)

    def fields_of(self, instance: Model) -> frozenset[str] | None:
        # A stored row is updated; the caller's own object is inserted.
        return self._names if id(instance) not in self._was_new else None

    def _subject(self, place: int) -> Model:
        return self._rows.get(place, self.instances[place])

    def store(self, start: int, end: int) -> None:
        self._is_begun = True
        places = range(start, end)
        subjects = [self._subject(place) for place in places]
        self.calls.call_batches(subjects)
        self.scope.take(one for one in subjects if one.pk is not None)
        new = [self.instances[place] for place in places if place not in self._rows]
        with beginning_again_after_deadlocks(self.progress):
            if new:
                self._write(new)
            self._update([place for place in places if place in self._rows])
        self.forget_parents(subjects)
        self.scope.instances.clear()
        self.scope.take(subjects)
        self.session.gather(self.scope)
        for change in self.scope.pending:
            if change.is_in_hand and not change.created and not change.deleted:
                take_over(change)
        self.session.settle(self.scope)

    def _update(self, places: Sequence[int]) -> None:
        rows = [self._rows[place] for place in places]
        names = {field.attname for field in self._fields}
        self.scope.stored = 0
        with self.scope.storing():
            store([(row, names, key_of_instance(row)) for row in rows], self.session.alias)
        if self.scope.stored < len(rows):
            # A concurrent transaction has deleted some since they were looked up.
            manager = self.model._base_manager.using(self.session.alias)
            with hidden(self.session.connection):
                found = manager.in_bulk([row.pk for row in rows])
            gone = [place for place in places if self._rows[place].pk not in found]
            self._write([self.instances[place] for place in gone])
            places = [place for place in places if place not in gone]
        for place in places:
            self._give_returned(self.instances[place], self._rows[place])

    def _give_returned(self, instance: Model, row: Model) -> None:
        """Set on the caller's object the values that Django sets for an existing row."""
        for field in self.model._meta.db_returning_fields:
            setattr(instance, field.attname, getattr(row, field.attname))
        instance._state.adding, instance._state.db = False, self.session.alias

    def _look_up(self, places: Iterable[int]) -> None:
        """Find the stored rows of some objects, and assign the new values to them."""
        objects = {place: self.instances[place] for place in places}
        with beginning_again_after_deadlocks(self.progress):
            found = find(self.model, self._unique, objects, self.session.alias)
        self._repeated |= found.repeated
        for place, row in found.rows.items():
            self._rows[place] = row
            for field in self._fields:
                value: Any = field.pre_save(self.instances[place], add=True)
                setattr(row, field.attname, value)
