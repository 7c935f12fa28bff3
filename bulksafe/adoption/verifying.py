"""Finds the rows that break invariants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from bulksafe.adoption import keys, orm
from bulksafe.adoption.errors import Unusable, message_of
from bulksafe.adoption.looking import Found, Look, probe
from bulksafe.adoption.rules import NothingAtRest, Rule, rule_of
from bulksafe.adoption.tables import Table, table_of
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from typing import Protocol

    from bulksafe.declarations import Declared

    class Progress(Protocol):
        """Called after each range of a table."""

        def __call__(self, table: str, rows: int, estimate: int | None) -> None: ...


#: Rows whose expression fails, after which a rule is given up: each of them costs queries.
MOST_FAILURES = 100


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
        verified = [
            _Verified(rule, result)
            for item, result in zip(items, results, strict=True)
            if (rule := _rule(item, table, result)) is not None
        ]
        for rows in _scan(table, verified, batch, first):
            progress(items[0].model._meta.db_table, rows, table.estimate)
    except (Unusable, DatabaseError) as error:
        # The server may be away, or the table: the other tables and databases are verified.
        said = str(error) if isinstance(error, Unusable) else f"{message_of(error)}."
        for result in results:
            result.error = result.error or said
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


def _query(relation: str, table: Table, rule: Rule) -> str:
    expected = f", {rule.expected} AS expected" if rule.expected else ""
    return (
        f'SELECT "new".*{expected} FROM {relation} AS "new" '  # noqa: S608
        f"WHERE {rule.violated} ORDER BY {keys.ordered(table)};"
    )


def _scan(table: Table, verified: Sequence[_Verified], batch: int, first: int) -> Iterator[int]:
    """Read the table once for all rules; yields the number of rows that were read so far."""
    look = Look(table, [one.rule.violated for one in verified])
    rows = 0
    for span in keys.spans(table, batch) if verified else ():
        for found in look.at(span):
            for number in found.conditions:
                _note(verified[number].result, found, table, first)
                if verified[number].result.error:
                    look.given_up.add(number)
        rows += batch if span.until else len(keys.keys_in(table, span))
        for one in verified:
            one.result.rows = rows
        yield rows


def _note(result: Result, found: Found, table: Table, first: int) -> None:
    key = keys.shown(table, found.key)
    if found.failure is None:
        result.violations += 1
        if len(result.first) < first:
            result.first.append(key)
        return
    result.failures.append((key, found.failure))
    if len(result.failures) == MOST_FAILURES:
        result.error = (
            f"Its expression fails for {MOST_FAILURES} rows, the last of them {key}: "
            f"{found.failure}. The rows after it were not looked at."
        )
