"""The query for the collected rows of one table, and the images in its result."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.utils.functional import cached_property

from bulksafe.outbox.events import UPDATED
from bulksafe.rendering import quoting
from bulksafe.writer.take_query import by_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from django.db.models import Field

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.images import Table
    from bulksafe.dispatch.routes import Route

Values = tuple[Any, ...]

#: Types whose values the driver returns as immutable objects, which two images may share.
_IMMUTABLE = frozenset(
    {
        "bigint",
        "boolean",
        "bytea",
        "char",
        "date",
        "double precision",
        "inet",
        "integer",
        "interval",
        "numeric",
        "real",
        "smallint",
        "text",
        "time",
        "timestamp with time zone",
        "timestamp",
        "uuid",
        "varchar",
    }
)


class StagedQuery:
    """The query for the rows of one table that an operation would change.

    Each row of its result has the number among the staged rows, whether the conditions of
    ``conditional`` are met, and the values of the old and of the new row. It has no new value where
    that is the old one.

    Args:
        table: the table of the model.
        operation: the operation on the rows.
        conditional: the receivers with a condition.
        relation: the table or partition, as SQL.
        assigned: the columns that the statement may change; None if it may change all.
    """

    def __init__(
        self,
        table: Table,
        operation: str,
        conditional: Sequence[Route],
        relation: str,
        assigned: Collection[str] | None,
    ) -> None:
        self._table = table
        self._conditional = conditional
        self._relation = relation
        start, width = 1 + len(conditional), len(table.fields)
        self._is_met = slice(1, start)
        self._old = slice(start, start + width)
        kept = set() if operation != UPDATED or assigned is None else self._columns() - {*assigned}
        #: The places of the columns whose new values are in the result.
        self._fetched = [
            place
            for place, field in enumerate(table.fields)
            if not (field.column in kept and self._is_immutable(field))
        ]
        places = {place: start + width + n for n, place in enumerate(self._fetched)}
        if operation == UPDATED:
            # The database computes generated values after all triggers: until then the row has the
            # old values.
            places |= {place: start + place for place in table.generated}
        self._new = _getter([places.get(place, start + place) for place in range(width)])

    def images(self, row: Values) -> tuple[Values, Values]:
        """The values of the old and of the new row."""
        return row[self._old], self._new(row)

    def unmet(self, row: Values) -> set[Receiver]:
        """The receivers whose conditions the row does not meet."""
        answers = zip(self._conditional, row[self._is_met], strict=True)
        return {route.receiver for route, is_met in answers if not is_met}

    @cached_property
    def text(self) -> str:
        """The query for the rows in the statement's order, with ``{home}`` before the function."""
        return self._ordered("s.n")

    @cached_property
    def text_by_key(self) -> str:
        """The query for updated or deleted rows in the order of their keys."""
        return self._ordered(", ".join(by_key(self._table, "old")))

    def _ordered(self, order: str) -> str:
        # Table and column names may contain psycopg's parameter syntax.
        selected = ", ".join(self._selected()).replace("%", "%%")
        sides = " ".join(self._rows_of(side) for side in ("old", "new")).replace("%", "%%")
        return (
            f"SELECT {selected} "  # noqa: S608
            f"FROM {{home}}.bulksafe_staged_rows(%s::pg_catalog.oid, %s, %s) AS s {sides} "
            f'WHERE s.operation OPERATOR(pg_catalog.=) %s::pg_catalog."char" ORDER BY {order}'
        )

    def _selected(self) -> Iterator[str]:
        columns = [quoting.identifier(str(one.column)) for one in self._table.fields]
        yield "s.n"
        yield from (f"COALESCE(({route.condition}), false)" for route in self._conditional)
        yield from (f'"old".{column}' for column in columns)
        yield from (f'"new".{columns[place]}' for place in self._fetched)

    def _rows_of(self, side: str) -> str:
        # OFFSET 0: the text is parsed into a row once, not for each column.
        parsed = f"(SELECT s.{side}::{self._relation} AS r OFFSET 0) AS x"
        return f"CROSS JOIN LATERAL (SELECT (x.r).* FROM {parsed}) AS {side}"  # noqa: S608

    def _columns(self) -> set[str]:
        return {str(one.column) for one in self._table.fields}

    def _is_immutable(self, field: Field[Any, Any]) -> bool:
        name = field.db_type(connections[self._table.using]) or ""
        return name.partition("(")[0].rstrip() in _IMMUTABLE


def _getter(places: Sequence[int]) -> Callable[[Values], Values]:
    """A function that returns the values at the places."""
    if len(places) == 1:
        place = places[0]
        return lambda row: (row[place],)
    return itemgetter(*places)
