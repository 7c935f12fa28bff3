"""The row that an instance would be stored as, in SQL.

PostgreSQL evaluates it, so types, rounding, collations and NULL behave as in the table.
"""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections, transaction
from django.utils.functional import cached_property

from bulksafe.declarations import Compute
from bulksafe.declarations.compute import computes_of
from bulksafe.declarations.modes import NEW, OBSERVE
from bulksafe.planning import fields
from bulksafe.planning.expressions import compile_expression
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

logger = logging.getLogger("bulksafe")


class Unknown(Exception):  # noqa: N818
    """The future row has a value that is excluded or not known yet."""


@dataclass(frozen=True)
class FutureRow:
    """The row of one table that an instance is about to be stored as.

    Attributes:
        model: the model of the table: the instance's, or a parent.
        instance: has the values.
        exclude: names of fields whose values are not to be used.
        using: the database.
    """

    model: type[Model]
    instance: Model
    exclude: frozenset[str]
    using: str

    # The stored row.

    def may_exist(self) -> bool:
        """Whether a row may already exist; with a parent's key it may be a new child."""
        is_own = type(self.instance)._meta.concrete_model is self.model
        known = None not in self._key()
        return known and not (is_own and self.instance._state.adding)

    def is_stored(self) -> bool:
        """Whether it is an update."""
        return self.may_exist() and self.is_true(f"SELECT EXISTS ({self.stored()})")

    def _key(self) -> list[Any]:
        return [getattr(self.instance, field.attname) for field in self.model._meta.pk_fields]

    def stored(self) -> str:
        """The query for the stored row with the instance's key."""
        table = quoting.relation(self.model._meta.db_table)
        key = zip(self.model._meta.pk_fields, self._key(), strict=True)
        found = [
            f"{quoting.identifier(str(field.column))} = {self._literal(field, value)}"
            for field, value in key
        ]
        return f"SELECT * FROM {table} WHERE {' AND '.join(found)}"  # noqa: S608  (all quoted)

    # The future row.

    def select(self, needed: Iterable[fields.Field]) -> str:
        """SQL like ``SELECT … AS "amount", …`` for the future row.

        Raises:
            Unknown: a value cannot be determined.
        """
        columns = sorted({str(field.column): field for field in needed}.items())
        listed = [
            f"{self._value(field, ())} AS {quoting.identifier(column)}" for column, field in columns
        ]
        return f"SELECT {', '.join(listed)}"

    @cached_property
    def _computes(self) -> dict[str, Compute]:
        return computes_of(self.model)

    def _value(self, field: fields.Field, seen: tuple[str, ...]) -> str:
        if field.name in seen:
            # A cycle; the system checks report it.
            raise Unknown
        compute = self._computes.get(field.name)
        if compute and compute.mode == OBSERVE:
            compute = None
        elif compute and compute.mode == NEW and self.may_exist():
            # It depends on the stored row whether the value is computed or stays wrong.
            raise Unknown
        expression = compute.expression if compute else getattr(field, "expression", None)
        if expression is not None and (compute or field.generated):
            return self._computed(field, expression, (*seen, field.name))
        value = getattr(self.instance, field.attname)
        if self._is_unknown(field, value):
            raise Unknown
        return _typed(self._literal(field, value), field)

    def _computed(self, field: fields.Field, expression: object, seen: tuple[str, ...]) -> str:
        value = compile_expression(self.model, expression, bare=True)
        inputs = [
            f"{self._value(read, seen)} AS {quoting.identifier(str(read.column))}"
            for _, read in sorted(value.reads, key=lambda pair: str(pair[1].column))
        ]
        source = f' FROM (SELECT {", ".join(inputs)}) AS "inputs"' if inputs else ""
        return _typed(f"(SELECT {value.sql}{source})", field)

    def _is_unknown(self, field: fields.Field, value: object) -> bool:
        adding = self.instance._state.adding
        return (
            field.name in self.exclude
            # F("amount") + 1, or the marker of a db_default.
            or hasattr(value, "resolve_expression")
            or getattr(field, "auto_now", False)
            or (getattr(field, "auto_now_add", False) and adding)
            or (field.primary_key and value is None)
        )

    def _literal(self, field: fields.Field, value: object) -> str:
        try:
            prepared = field.get_db_prep_save(value, connections[self.using])
            return quoting.literal(prepared)
        except (ValueError, TypeError, ValidationError, psycopg.Error) as error:
            # clean_fields() reports its problem.
            raise Unknown from error

    def states(self, field: fields.Field) -> tuple[str | None, str | None, bool]:
        """The stored and the future value as text, and whether no row is stored."""
        column = quoting.identifier(str(field.column))
        text = f"SELECT to_jsonb(r.{column}) #>> '{{}}' FROM "  # noqa: S608  (all quoted)
        parts = [f"({text}({self.select([field])}) AS r)"]
        if self.may_exist():
            parts += [f"({text}({self.stored()}) AS r)", f"EXISTS ({self.stored()})"]
        with connections[self.using].cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(parts)}")
            after, *stored = cursor.fetchone()
        before, is_stored = stored or (None, False)
        return before, after, not is_stored

    # The query to PostgreSQL.

    def is_true(self, sql: str) -> bool:
        """Whether the first value of the first row is true.

        If the query fails, so will the write, with its own error: the rule itself is not violated.
        Django's ``CheckConstraint`` does the same.
        """
        connection = connections[self.using]
        in_block = connection.in_atomic_block
        savepoint = transaction.atomic(using=self.using) if in_block else nullcontext()
        try:
            with savepoint, connection.cursor() as cursor:
                cursor.execute(sql)
                row = cursor.fetchone()
        except DatabaseError as error:
            logger.warning("full_clean() could not evaluate %r: %s", self.instance, error)
            return False
        return bool(row and row[0])


#: A cast would truncate values that an assignment refuses.
_LENGTH = re.compile(r"\A(?:varchar|char|character varying|character)\(\d+\)")


def _typed(sql: str, field: fields.Field) -> str:
    """``sql`` as a value of the column's type and collation."""
    db_type = _LENGTH.sub("text", fields.cast_type(field))
    collation = fields.collation(field)
    collate = f" COLLATE {quoting.identifier(collation)}" if collation else ""
    return f"({sql})::{db_type}{collate}"
