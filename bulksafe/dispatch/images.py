"""Row images as model instances.

PostgreSQL turns an image back into columns, with the types that the table has, and Django's own
converters and ``from_db`` do the rest, so every column type has the same value as in a query.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, connections, transaction
from django.db.models import Model
from django.utils.functional import cached_property

from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch import image_query
from bulksafe.dispatch.assigning import assign, notices_assignment
from bulksafe.sqlstates import is_about_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bulksafe.outbox.events import Event


@dataclass(frozen=True, slots=True)
class Image:
    """A row as the database returned it, before Django's conversion."""

    values: tuple[Any, ...]
    table: Table

    def instance(self) -> Model:
        """A new instance of the row's model."""
        return self.table.instance(self.values)

    def instance_after(self, before: Image) -> Model:
        """An instance of the row ``before``, with the values of this image assigned.

        So a field tracker, which keeps the loaded values, sees the changes of an update.
        """
        if not notices_assignment(self.table.model):
            return self.instance()
        instance = before.instance()
        assign(instance, self.table.differing(before.values, self.values))
        return instance


class Unreadable(Exception):  # noqa: N818
    """The image of an event no longer fits its table."""


#: Field types whose values may be equal but not identical: ``0.0`` and ``-0.0``, ``1.0`` and
#: ``1.00``.
_NUMERIC = frozenset({float, Decimal, list})

#: By side, and by the events' numbers.
Images = dict[str, dict[int, "Image | Unreadable"]]


def stored_fields(fields: Iterable[Any]) -> list[Any]:
    """The fields with a stored column; excludes virtual generated columns."""
    return [one for one in fields if not (one.generated and not one.db_persist)]


@dataclass(frozen=True)
class Table:
    """Reads the images of one model's rows.

    Attributes:
        model: the concrete model.
        using: the database.
    """

    model: type[Model]
    using: str
    _queries: dict[tuple[tuple[str, ...], str], str] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def has_parents(self) -> bool:
        """Whether a row lies in several tables."""
        return len(lineage(self.model)) > 1

    @cached_property
    def fields(self) -> list[Any]:
        """The model's stored fields, in the order of an image's values."""
        return stored_fields(self.model._meta.concrete_fields)

    @cached_property
    def generated(self) -> list[int]:
        """The places of the values that the database generates."""
        return [place for place, one in enumerate(self.fields) if one.generated]

    @cached_property
    def names(self) -> list[str]:
        """The field names, in the order of an image's values."""
        return [one.name for one in self.fields]

    @cached_property
    def all_names(self) -> frozenset[str]:
        return frozenset(self.names)

    @cached_property
    def attnames(self) -> list[str]:
        return [one.attname for one in self.fields]

    @cached_property
    def _convert(self) -> Callable[[tuple[Any, ...]], Sequence[Any]]:
        return self.converter(self.fields)

    def converted_at(self, place: int, value: object) -> object:
        """One of an image's values, converted as in a query."""
        functions, expression = self._converters.get(place, ((), None))
        for function in functions:
            value = function(value, expression, connections[self.using])
        return value

    @cached_property
    def _converters(self) -> dict[int, tuple[Sequence[Callable[..., Any]], Any]]:
        compiler = self.model._base_manager.using(self.using).query.get_compiler(self.using)
        columns = [one.get_col(one.model._meta.db_table) for one in self.fields]
        found: dict[int, tuple[Sequence[Callable[..., Any]], Any]]
        found = compiler.get_converters(columns)
        return found

    def converter(self, fields: Sequence[Any]) -> Callable[[tuple[Any, ...]], Sequence[Any]]:
        """The function that converts database values of some fields to a query's values."""
        compiler = self.model._base_manager.using(self.using).query.get_compiler(self.using)
        columns = [one.get_col(one.model._meta.db_table) for one in fields]
        converters = compiler.get_converters(columns)
        if not converters:
            return lambda values: values
        return lambda values: next(iter(compiler.apply_converters([values], converters)))

    @cached_property
    def _key(self) -> tuple[list[int], Callable[[tuple[Any, ...]], Sequence[Any]]]:
        """The position of the primary key among an image's values, and its conversion."""
        places = [self.fields.index(one) for one in self.model._meta.pk_fields]
        return places, self.converter([self.fields[place] for place in places])

    @cached_property
    def _plain_key(self) -> int | None:
        """The position of the key, if it is a single value that needs no conversion."""
        place = self.fields.index(self.model._meta.pk) if len(self._key[0]) == 1 else None
        return None if place in self._converters else place

    def key(self, values: tuple[Any, ...]) -> object:
        """The primary key as a query returns it: one value, or a tuple of several."""
        if self._plain_key is not None:
            return values[self._plain_key]
        places, convert = self._key
        found = tuple(convert(tuple(values[place] for place in places)))
        return found[0] if len(found) == 1 else found

    def instance(self, values: tuple[Any, ...]) -> Model:
        return self.model.from_db(self.using, self.attnames, self.converted(values))

    def converted(self, values: tuple[Any, ...]) -> Sequence[Any]:
        """The values, converted as in a query, in the order of ``attnames``."""
        return self._convert(values)

    def differing(self, before: tuple[Any, ...], after: tuple[Any, ...]) -> dict[str, Any]:
        """The attributes whose converted values differ in ``after``."""
        pairs = zip(before, after, strict=True)
        return {
            self.attnames[place]: self.converted_at(place, new)
            for place, (old, new) in enumerate(pairs)
            if old != new or (old.__class__ in _NUMERIC and repr(old) != repr(new))
        }

    def read_or_fail(self, events: Sequence[Event], sides: Sequence[str]) -> Images:
        """The same as ``read()``, without a savepoint: two round trips less.

        Raises:
            DataError, IntegrityError: an image does not fit the table. The transaction is broken.
        """
        return self._read(events, tuple(sides)) if events else {side: {} for side in sides}

    def read(self, events: Sequence[Event], sides: Sequence[str]) -> Images:
        """Images of ``events``, by side and the events' numbers.

        Args:
            events: all parked, or none.
            sides: ``"old"``, ``"new"`` or both. A side that an event does not have is all NULL.
        """
        if not events:
            return {side: {} for side in sides}
        try:
            with transaction.atomic(using=self.using):
                return self._read(events, tuple(sides))
        except DatabaseError as error:
            # Else it says nothing about the event. An old listener lacks a column, for example.
            if not is_about_values(error):
                raise
            if len(events) == 1:
                return {side: {events[0].number: Unreadable(str(error))} for side in sides}
        found: Images = {side: {} for side in sides}
        for event in events:
            for side, images in self.read([event], sides).items():
                found[side] |= images
        return found

    def meets(self, event: Event, conditions: Sequence[str]) -> Sequence[bool]:
        """Which conditions over the rows ``old`` and ``new`` the event meets.

        Args:
            event: one that is in the outbox.
            conditions: SQL from planning.
        """
        text = image_query.meets(self.model, event, conditions)
        with connections[self.using].cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchone())

    def _read(self, events: Sequence[Event], sides: tuple[str, ...]) -> Images:
        if len(sides) > 1 and len(sides) * len(self.fields) > image_query.MOST_COLUMNS:
            return {side: self._read(events, (side,))[side] for side in sides}
        as_captured = [event for event in events if not event.amended]
        amended = [event for event in events if event.amended]
        rows: list[tuple[Any, ...]] = []
        with connections[self.using].cursor() as cursor:
            if as_captured:
                found = (
                    image_query.CAPTURED if as_captured[0].parked is None else image_query.PARKED
                )
                cursor.execute(self._query(sides, found), image_query.keys(as_captured))
                rows += cursor.fetchall()
            if amended:
                cursor.execute(
                    self._query(sides, image_query.AMENDED), image_query.amended_keys(amended)
                )
                rows += cursor.fetchall()
        width = len(self.fields)
        return {
            side: {row[0]: Image(row[start : start + width], self) for row in rows}
            for side, start in zip(sides, range(1, len(sides) * width + 1, width), strict=True)
        }

    def _query(self, sides: tuple[str, ...], found: str) -> str:
        key = sides, found
        if key not in self._queries:
            self._queries[key] = image_query.select(self.model, self.fields, sides, found)
        return self._queries[key]
