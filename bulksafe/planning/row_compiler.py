"""The SQL of a resolved expression over the old and the new row of a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import models
from django.db.models.expressions import (
    Col,
    CombinedExpression,
    Expression,
    ExpressionWrapper,
    Func,
    Value,
)
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.where import XOR, WhereNode

from bulksafe.planning import fields
from bulksafe.planning.nodes import output_field, walk


class RowCompiler(SQLCompiler):
    """Compiler that quotes every name on all Django versions and records the columns read."""

    def __init__(self, query: Query, connection: Any, using: Any) -> None:
        super().__init__(query, connection, using)
        self.reads: set[tuple[str, models.Field[Any, Any]]] = set()

    def quote_name(self, name: str) -> str:
        return self.connection.ops.quote_name(name)

    quote_name_unless_alias = quote_name

    def compile(self, node: Any) -> Any:
        if self._tests_missing_row(node):
            return "false", ()
        if isinstance(node, WhereNode) and node.connector == XOR:
            node = self._with_tests_made(node)
        if isinstance(node, Col):
            # pgtrigger.F() writes the rows in capitals.
            row = (node.alias or self.query.row).lower()  # type: ignore[attr-defined]
            row = "old" if self.query.before else row  # type: ignore[attr-defined]
            self.reads.add((row, node.target))
            if self.query.bare:  # type: ignore[attr-defined]
                return self._parameter(node.target)
            node = Col(row, node.target, node.output_field)
        if isinstance(node, CombinedExpression) and _moves_a_moment(node):
            return self._moved(node)
        return super().compile(node)

    def _tests_missing_row(self, node: Any) -> bool:
        """Whether it is a single test of a missing row."""
        missing = self.query.missing  # type: ignore[attr-defined]
        if missing is None or isinstance(node, WhereNode | ExpressionWrapper):
            return False
        return bool(getattr(node, "conditional", False)) and any(
            isinstance(part, Col) and (part.alias or "").lower() == missing for part in walk(node)
        )

    def _with_tests_made(self, node: WhereNode) -> WhereNode:
        """Compile operands of XOR first: Django makes XOR a sum that loses missing-row tests."""
        if self.query.missing is None:  # type: ignore[attr-defined]
            return node
        tests: list[Any] = [_Compiled(*self._test(child)) for child in node.children]
        return WhereNode(tests, XOR, node.negated)

    def _test(self, node: Any) -> tuple[str, Any]:
        try:
            return self.compile(node)  # type: ignore[no-any-return]
        except EmptyResultSet:
            return "false", ()
        except FullResultSet:
            return "true", ()

    def _parameter(self, field: models.Field[Any, Any]) -> tuple[str, tuple[()]]:
        """A column as a function parameter, with the collation that a parameter loses."""
        name = self.quote_name(str(field.column))
        collation = fields.collation(field)
        return (f"({name} COLLATE {self.quote_name(collation)})" if collation else name), ()

    def _moved(self, node: CombinedExpression) -> tuple[str, tuple[Any, ...]]:
        """A datetime plus or minus a duration, in Django's time zone.

        A day with a clock change has 23 or 25 hours, and PostgreSQL would use the session's time
        zone.
        """
        zone = Value(self.connection.timezone_name)
        local = node.copy()
        local.set_source_expressions(
            [
                _AtTimeZone(source, zone) if _is_moment(source) else source
                for source in node.get_source_expressions()
            ]
        )
        sql, params = super().compile(local)
        return f"(({sql}) AT TIME ZONE %s)", (*params, zone.value)


class _Compiled(Expression):
    """A test that is already compiled to SQL."""

    output_field = models.BooleanField()

    def __init__(self, sql: str, params: Sequence[Any]) -> None:
        super().__init__()
        self.text = sql
        self.params = params

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return f"({self.text})", self.params


class _AtTimeZone(Func):
    template = "(%(expressions)s)"
    arg_joiner = " AT TIME ZONE "
    output_field = models.DateTimeField()


def _is_moment(node: Any) -> bool:
    return isinstance(output_field(node), models.DateTimeField)


def _moves_a_moment(node: CombinedExpression) -> bool:
    """Whether it is ``datetime ± duration``."""
    sides = node.get_source_expressions()
    durations = [isinstance(output_field(s), models.DurationField) for s in sides]
    return any(durations) and any(map(_is_moment, sides))
