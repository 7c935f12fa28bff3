"""Rows as they were, as instances of their models.

PostgreSQL turns an image back into columns, with the types that the table has, and Django's own
converters and ``from_db`` do the rest: every column type comes out as from a query.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.db import DataError, connections, transaction
from django.db.models import Model

from bulksafe.dispatch.sources import lineage
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bulksafe.outbox.events import Event


@dataclass(frozen=True)
class Image:
    """A row as the database returned it, before Django's conversion."""

    values: tuple[Any, ...]
    table: Table

    def instance(self) -> Model:
        """A new instance of the row's model."""
        return self.table.instance(self.values)


class Unreadable(Exception):  # noqa: N818
    """The image of an event does not fit its table any more."""


@dataclass(frozen=True)
class Table:
    """How the images of one model's rows are read.

    Attributes:
        model: the concrete model.
        using: the database.
    """

    model: type[Model]
    using: str

    @cached_property
    def _fields(self) -> list[Any]:
        return [
            field
            for field in self.model._meta.concrete_fields
            if not (field.generated and not field.db_persist)  # type: ignore[attr-defined]
        ]

    @cached_property
    def names(self) -> list[str]:
        """The field names, in the order of an image's values."""
        return [field.name for field in self._fields]

    @cached_property
    def _attnames(self) -> list[str]:
        return [field.attname for field in self._fields]

    @cached_property
    def _convert(self) -> Callable[[tuple[Any, ...]], Sequence[Any]]:
        compiler = self.model._base_manager.using(self.using).query.get_compiler(self.using)
        columns = [field.get_col(field.model._meta.db_table) for field in self._fields]
        converters = compiler.get_converters(columns)
        if not converters:
            return lambda values: values
        return lambda values: next(iter(compiler.apply_converters([values], converters)))

    def instance(self, values: tuple[Any, ...]) -> Model:
        return self.model.from_db(self.using, self._attnames, self._convert(values))

    def read(self, events: Sequence[Event], side: str) -> Mapping[int, Image | Unreadable]:
        """The old or the new images of ``events``, by the events' numbers.

        Args:
            events: all parked, or none.
            side: ``"old"`` or ``"new"``.
        """
        if not events:
            return {}
        try:
            with transaction.atomic(using=self.using):
                return self._read(events, side)
        except DataError as error:
            if len(events) == 1:
                return {events[0].seq: Unreadable(str(error))}
        found: dict[int, Image | Unreadable] = {}
        for event in events:
            found.update(self.read([event], side))
        return found

    def meets(self, event: Event, conditions: Sequence[str]) -> Sequence[bool]:
        """Which conditions over the rows ``old`` and ``new`` the event meets.

        Args:
            event: one that is in the outbox.
            conditions: SQL, as planning makes it.
        """
        row = f"NULL::{quoting.relation(self.model._meta.db_table)}"
        answers = ", ".join(f"COALESCE(({condition}), false)" for condition in conditions)
        before = event.before
        # Conditions of planning's own, quoted names and numbers.
        text = (
            f"SELECT {answers} FROM bulksafe_outbox AS e JOIN bulksafe_outbox AS f "  # noqa: S608
            f"ON (f.slot, f.bucket, f.seq) = ({before.slot:d}, {event.bucket:d}, {before.seq:d}) "
            f"CROSS JOIN LATERAL jsonb_populate_record({row}, f.old) AS old "
            f"CROSS JOIN LATERAL jsonb_populate_record({row}, e.new) AS new "
            f"WHERE (e.slot, e.bucket, e.seq) = ({event.slot:d}, {event.bucket:d}, {event.seq:d})"
        )
        with connections[self.using].cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchone())

    def _read(self, events: Sequence[Event], side: str) -> dict[int, Image | Unreadable]:
        is_parked = events[0].parked is not None
        with connections[self.using].cursor() as cursor:
            cursor.execute(self._parked[side] if is_parked else self._captured[side], _keys(events))
            return {row[0]: Image(tuple(row[1:]), self) for row in cursor.fetchall()}

    @cached_property
    def _captured(self) -> dict[str, str]:
        found = (
            "FROM unnest(%s::smallint[], %s::smallint[], %s::bigint[]) AS k (slot, bucket, seq) "
            "JOIN bulksafe_outbox AS e "
            "ON e.slot = k.slot AND e.bucket = k.bucket AND e.seq = k.seq"
        )
        return {side: self._select(found, side) for side in ("old", "new")}

    @cached_property
    def _parked(self) -> dict[str, str]:
        found = "FROM bulksafe_parked AS e"
        return {
            side: self._select(found, side) + " WHERE e.id = ANY (%s)" for side in ("old", "new")
        }

    def _select(self, found: str, side: str) -> str:
        tables = lineage(self.model)
        aliases = {model: f'"part {number}"' for number, model in enumerate(tables)}
        columns = [
            f"{aliases[field.model._meta.concrete_model]}.{quoting.identifier(field.column)}"
            for field in self._fields
        ]
        records = [
            f"CROSS JOIN LATERAL jsonb_populate_record(NULL::"
            f"{quoting.relation(model._meta.db_table)}, e.{side}) AS {alias}"
            for model, alias in aliases.items()
        ]
        text = f"SELECT e.seq, {', '.join(columns)} {{found}} {' '.join(records)}"
        # Names of tables and columns may hold what psycopg takes for a parameter.
        return text.replace("%", "%%").replace("{found}", found)


def _keys(events: Sequence[Event]) -> list[Any]:
    if events[0].parked is not None:
        return [[event.parked for event in events]]
    return [
        [event.slot for event in events],
        [event.bucket for event in events],
        [event.seq for event in events],
    ]
