"""Evaluates conditions over the rows of a table, without locks that a writer waits for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from bulksafe.adoption import keys
from bulksafe.adoption.errors import Unusable, depends_on_values, message_of
from bulksafe.adoption.keys import Span
from bulksafe.adoption.tables import Table, reading
from bulksafe.sqlstates import NOT_ALLOWED, sqlstate

if TYPE_CHECKING:
    from bulksafe.adoption.keys import Key


@dataclass(frozen=True)
class Found:
    """A row for which a condition is true, or cannot be evaluated.

    Attributes:
        key: the row's key.
        conditions: the numbers of these conditions.
        failure: the error's message; None if the conditions are true.
    """

    key: Key
    conditions: frozenset[int]
    failure: str | None = None


@dataclass(frozen=True)
class Look:
    """Looks for rows for which conditions are true.

    Attributes:
        table: the table.
        conditions: SQL over the row ``new``.
        given_up: the numbers of conditions that are no longer evaluated.
    """

    table: Table
    conditions: Sequence[str]
    given_up: set[int] = field(default_factory=set)

    def at(self, span: Span) -> Iterator[Found]:
        """The rows of ``span``, in the order of their keys.

        If an expression fails for a row, each condition is evaluated alone, and the span is halved
        until the row is found. Then the rows come condition by condition.
        """
        yield from self._at(span, range(len(self.conditions)))

    def _at(self, span: Span, numbers: Sequence[int]) -> Iterator[Found]:
        numbers = [number for number in numbers if number not in self.given_up]
        if not numbers:
            return
        where = keys.within(self.table, span)
        try:
            with reading(self.table) as cursor:
                found = self.matching(cursor, where, numbers)
        except DatabaseError as error:
            if not depends_on_values(error):
                raise
            yield from self._closer(span, numbers, error)
        else:
            yield from found

    def _closer(self, span: Span, numbers: list[int], error: DatabaseError) -> Iterator[Found]:
        if len(numbers) > 1:
            for number in numbers:
                yield from self._at(span, [number])
            return
        listed = keys.keys_in(self.table, span)
        if len(listed) == 1:
            yield Found(listed[0], frozenset(numbers), message_of(error))
        elif listed:
            middle = listed[len(listed) // 2 - 1]
            yield from self._at(Span(span.after, middle), numbers)
            yield from self._at(Span(middle, span.until), numbers)

    def matching(
        self, cursor: Any, where: str, numbers: Sequence[int] | None = None, *, locking: str = ""
    ) -> list[Found]:
        """The rows for which at least one condition is true, in the order of their keys.

        Args:
            cursor: in a transaction with the search_path of the table.
            where: the rows to look at.
            numbers: the conditions to evaluate; all by default.
            locking: the end of the statement, ``FOR UPDATE``.
        """
        numbers = range(len(self.conditions)) if numbers is None else numbers
        tests = [f"({self.conditions[number]})" for number in numbers]
        cursor.execute(
            f"SELECT {keys.as_texts(self.table)}, "  # noqa: S608
            f"{', '.join(f'{test} IS TRUE' for test in tests)} "
            f'FROM {self.table.name} AS "new" '
            f"WHERE {where} AND ({' OR '.join(tests)}) "
            f"ORDER BY {keys.ordered(self.table)} {locking}"
        )
        width = len(self.table.key)
        return [
            Found(
                row[:width],
                frozenset(n for n, is_true in zip(numbers, row[width:], strict=True) if is_true),
            )
            for row in cursor.fetchall()
        ]


def probe(table: Table, condition: str) -> None:
    """Try a condition on no row.

    Raises:
        Unusable: it names a column or a function that does not exist (yet), or may not be read.
    """
    try:
        with reading(table) as cursor:
            cursor.execute(f'SELECT {condition} FROM {table.name} AS "new" LIMIT 0')  # noqa: S608
    except DatabaseError as error:
        if not (sqlstate(error) or "").startswith("42"):
            raise
        is_pending = sqlstate(error) != NOT_ALLOWED
        hint = " If a migration is pending, run migrate first." if is_pending else ""
        raise Unusable(f"{message_of(error)}.{hint}") from error
