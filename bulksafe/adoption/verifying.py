"""Finds the rows that break invariants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from bulksafe.adoption import keys, orm
from bulksafe.adoption.keys import Span
from bulksafe.adoption.rules import NothingAtRest, Rule, rule_of
from bulksafe.adoption.tables import Table, Unusable, reading, table_of
from bulksafe.rendering import quoting
from bulksafe.sqlstates import sqlstate

if TYPE_CHECKING:
    from typing import Protocol

    from bulksafe.adoption.keys import Key
    from bulksafe.declarations import Declared

    class Progress(Protocol):
        """Called after each range of a table."""

        def __call__(self, table: str, rows: int, estimate: int | None) -> None: ...


#: Rows whose expression fails, after which a rule is given up: each of them costs queries.
MOST_FAILURES = 100

#: Classes of SQLSTATE for errors that depend on a row's values: data exceptions, and errors that
#: functions raise.
_OF_A_ROW = ("22", "2F", "38", "39", "P0")


@dataclass
class Result:
    """What was found for one invariant in one database.

    Attributes:
        invariant: its label, ``"shop.Order:net"``.
        kind: ``"Check"``, ``"Compute"``…
        database: the alias.
        verifiable: whether a row at rest can break it.
        reason: why not, as a sentence.
        rows: the number of rows that were looked at.
        violations: the number of rows that break it.
        first: the first keys of these, in key order.
        meaning: what a violation is, where the declaration does not say it.
        failures: rows for which its expression fails, as (key, message).
        sql: a query for the rows, for psql.
        orm: the same as Python code, if the ORM can express it.
        error: why it was not verified, or not to the end.
    """

    invariant: str
    kind: str
    database: str
    verifiable: bool = True
    reason: str | None = None
    rows: int = 0
    violations: int = 0
    first: list[Any] = field(default_factory=list)
    meaning: str | None = None
    failures: list[tuple[Any, str]] = field(default_factory=list)
    sql: str | None = None
    orm: str | None = None
    error: str | None = None

    @property
    def is_finding(self) -> bool:
        return bool(self.violations or self.failures)

    def count(self, key: Any, first: int) -> None:
        """Note a row that breaks the rule."""
        self.violations += 1
        if len(self.first) < first:
            self.first.append(key)

    def fail(self, key: Any, message: str) -> None:
        """Note a row for which the expression fails."""
        self.failures.append((key, message))
        if len(self.failures) >= MOST_FAILURES:
            self.error = (
                f"Its expression fails for {MOST_FAILURES} rows, the last of them {key}: "
                f"{message}. The rows after it were not looked at."
            )


@dataclass(frozen=True)
class _Verified:
    """A rule that is being verified, and its result so far."""

    rule: Rule
    result: Result


def verify(
    items: Sequence[Declared], using: str, *, batch: int, first: int, progress: Progress
) -> list[Result]:
    """Verify invariants on one table, whose rows are read once.

    Args:
        items: invariants of one table.
        using: the database.
        batch: rows of a transaction.
        first: how many keys to list for each invariant.
        progress: called after each batch.
    """
    kinds = [(item, type(item.invariant).__name__) for item in items]
    results = [Result(item.label, kind, using) for item, kind in kinds]
    try:
        table = table_of(items[0].model, using)
    except Unusable as error:
        for result in results:
            result.error = str(error)
        return results
    verified = [
        _Verified(rule, result)
        for item, result in zip(items, results, strict=True)
        if (rule := _rule(item, table, result)) is not None
    ]
    _Scan(table, quoting.relation(items[0].model._meta.db_table), first).run(
        verified, batch, progress
    )
    return results


def _rule(item: Declared, table: Table, result: Result) -> Rule | None:
    """The rule, if there is something to verify; otherwise says in the result why not."""
    try:
        rule = rule_of(item, table)
        if isinstance(rule, NothingAtRest):
            result.verifiable = False
            result.reason = rule.reason
            return None
        probe(table, rule.violated)
    except Unusable as error:
        result.error = str(error)
        return None
    result.meaning = rule.meaning or None
    result.sql = _query(quoting.relation(item.model._meta.db_table), table, rule)
    result.orm = orm.query_of(item.invariant, item.model, table.using)
    return rule


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
        hint = (
            "" if sqlstate(error) == "42501" else " If a migration is pending, run migrate first."
        )
        raise Unusable(f"{message_of(error)}.{hint}") from error


def message_of(error: BaseException) -> str:
    """The first line of an error; without PostgreSQL's DETAIL, which may contain other columns."""
    primary = getattr(getattr(error.__cause__, "diag", None), "message_primary", None)
    text = primary or str(error).partition("\n")[0] or type(error).__name__
    return str(text).rstrip(".")


def _query(relation: str, table: Table, rule: Rule) -> str:
    expected = f", {rule.expected} AS expected" if rule.expected else ""
    return (
        f'SELECT "new".*{expected} FROM {relation} AS "new" '  # noqa: S608
        f"WHERE {rule.violated} ORDER BY {keys.ordered(table)};"
    )


@dataclass
class _Scan:
    """One pass over a table.

    Attributes:
        table: the table.
        relation: its name for messages.
        first: how many keys to list for each invariant.
        rows: the rows that were read so far.
    """

    table: Table
    relation: str
    first: int
    rows: int = 0

    def run(self, verified: Sequence[_Verified], batch: int, progress: Progress) -> None:
        for span in keys.spans(self.table, batch) if verified else ():
            if looked_at := [one for one in verified if one.result.error is None]:
                self._look(span, looked_at)
            self.rows += batch if span.until else len(keys.keys_in(self.table, span))
            progress(self.relation, self.rows, self.table.estimate)
        for one in verified:
            one.result.rows = self.rows

    def _look(self, span: Span, verified: Sequence[_Verified]) -> None:
        """Note what breaks the rules in ``span``.

        If an expression fails for a row, each rule is looked at alone, and the span is halved until
        the row is found.
        """
        try:
            with reading(self.table) as cursor:
                conditions = [one.rule.violated for one in verified]
                found = broken(cursor, self.table, keys.within(self.table, span), conditions)
        except DatabaseError as error:
            if not (sqlstate(error) or "").startswith(_OF_A_ROW):
                raise
            if len(verified) == 1:
                self._halve(span, verified[0], error)
            else:
                for one in verified:
                    self._look(span, [one])
            return
        for key, flags in found:
            for one, is_broken in zip(verified, flags, strict=True):
                if is_broken:
                    one.result.count(keys.shown(self.table, key), self.first)

    def _halve(self, span: Span, one: _Verified, error: DatabaseError) -> None:
        listed = keys.keys_in(self.table, span)
        if len(listed) == 1:
            one.result.fail(keys.shown(self.table, listed[0]), message_of(error))
        elif listed:
            middle = listed[len(listed) // 2 - 1]
            for half in (Span(span.after, middle), Span(middle, span.until)):
                if one.result.error is None:
                    self._look(half, [one])


def broken(
    cursor: Any, table: Table, where: str, conditions: Sequence[str], *, locking: str = ""
) -> list[tuple[Key, list[bool]]]:
    """The rows for which at least one condition is true, in key order, with a flag for each.

    Args:
        cursor: in a transaction whose search_path is that of the table.
        where: the rows to look at.
        conditions: SQL over the row ``new``.
        locking: the end of the statement, ``FOR UPDATE``.
    """
    flags = ", ".join(f"({condition}) IS TRUE" for condition in conditions)
    cursor.execute(
        f'SELECT {keys.as_texts(table)}, {flags} FROM {table.name} AS "new" '  # noqa: S608
        f"WHERE {where} AND (({') OR ('.join(conditions)})) "
        f"ORDER BY {keys.ordered(table)} {locking}"
    )
    width = len(table.key)
    return [(row[:width], list(row[width:])) for row in cursor.fetchall()]
