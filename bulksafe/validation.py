"""Invariants in ``Model.full_clean()``, so that a form shows the message.

PostgreSQL evaluates the future row with the trigger's own condition, so types, rounding, collations
and NULL behave the same.
"""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import TYPE_CHECKING, Any

import pgtrigger
import psycopg
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections, transaction

from bulksafe import compiler, forms
from bulksafe.declarations import (
    Capture,
    Check,
    Compute,
    Declared,
    Immutable,
    Invariant,
    Transition,
    declared,
)
from bulksafe.declarations.compute import computes_of
from bulksafe.declarations.modes import NEW as NEW_ROWS
from bulksafe.declarations.modes import OBSERVE
from bulksafe.exceptions import InvalidDeclaration
from bulksafe.planning import Refused, fields
from bulksafe.planning.expressions import NEW, OLD, compile_expression
from bulksafe.planning.rules import events_of
from bulksafe.rendering import quoting, templates

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.db.models import Model

logger = logging.getLogger("bulksafe")


def constraints_of(model: type[Model]) -> list[tuple[type[Model], list[Validator]]]:
    """The invariants of ``model`` and its parents, in the form of ``Model.get_constraints()``."""
    lineage = {m._meta.concrete_model for m in (model, *model._meta.all_parents)}
    return [
        (item.model, [Validator(item)])
        for item in declared()
        if item.model._meta.concrete_model in lineage
    ]


@dataclass(frozen=True)
class Validator:
    """Implements the constraint interface of ``Model.validate_constraints``."""

    item: Declared
    #: Django asks a constraint for its fields when the error's code is "unique".
    fields: tuple[str, ...] = ()

    def validate(
        self,
        model: type[Model],
        instance: Model,
        exclude: Collection[str] | None = None,
        using: str = "default",
    ) -> None:
        """Raise ValidationError if saving ``instance`` would break the invariant.

        With ``mode="observe"`` nothing does.

        Like a ``CheckConstraint``, a rule is left to the database if one of its fields is excluded
        from validation, or has a value that only the database can compute. Unlike there, a Check
        is evaluated with the instance's values of the fields that a ModelForm lacks.
        """
        if self.item.invariant.mode == OBSERVE:
            return
        concrete = model._meta.concrete_model or model
        excluded = frozenset(exclude or ())
        if isinstance(self.item.invariant, Check):
            excluded -= forms.known_fields(instance)
        change = Change(concrete, instance, excluded, using)
        if connections[using].vendor == "postgresql" and not change.passes(self.item):
            invariant = self.item.invariant
            message = invariant.message or change.default_message(self.item)
            raise ValidationError(message, code=invariant.name)


class _Unknown(Exception):  # noqa: N818
    """The future row has a value that is excluded or not known yet."""


@dataclass(frozen=True)
class Rule:
    """A condition that a trigger refuses.

    Attributes:
        violated: SQL over the rows ``old`` and ``new``.
        reads: the columns of the new row that it needs.
        events: the operations of the rule.
        reads_old: whether it needs the old row.
        spares: SQL over the row ``old``: whether the rule spares a change of this stored row.
    """

    violated: str
    reads: frozenset[fields.Field]
    events: tuple[Any, ...]
    reads_old: bool
    spares: str = ""


@singledispatch
def rules_of(invariant: Invariant, change: Change) -> list[Rule]:
    """The rules that can be evaluated before the row is stored."""
    raise NotImplementedError(f"no validation for {type(invariant).__name__}")


@rules_of.register(Compute)
@rules_of.register(Capture)
def _nothing(invariant: Invariant, change: Change) -> list[Rule]:
    return []


@rules_of.register(Check)
def _check(check: Check, change: Change) -> list[Rule]:
    events = tuple(events_of(check, change.model))
    if pgtrigger.Delete in events:
        return []
    condition = compile_expression(change.model, check.condition, annotations=check.annotations)
    reads = frozenset(field for row, field in condition.reads if row == NEW)
    reads_old = OLD in condition.rows()
    spares = ""
    if check.mode == NEW_ROWS and pgtrigger.Update in events and not reads_old:
        annotations = check.annotations
        stored = compile_expression(
            change.model, check.condition, annotations=annotations, before=True
        )
        spares = f"NOT ({stored.sql})"
    return [Rule(f"NOT ({condition.sql})", reads, events, reads_old, spares)]


@rules_of.register(Immutable)
def _immutable(immutable: Immutable, change: Change) -> list[Rule]:
    rules = []
    for field in (fields.column_field(change.model, name) for name in immutable.fields):
        # One rule per field: an excluded field must not disable the others.
        alone = Immutable(field.name, name=immutable.name)
        rules += _triggers_as_rules(alone, field, change)
    return rules


@rules_of.register(Transition)
def _transition(transition: Transition, change: Change) -> list[Rule]:
    field = fields.column_field(change.model, transition.field)
    return _triggers_as_rules(transition, field, change)


_EVENTS = {"INSERT": pgtrigger.Insert, "UPDATE": pgtrigger.Update}


def _triggers_as_rules(invariant: Invariant, field: fields.Field, change: Change) -> list[Rule]:
    return [
        Rule(
            trigger["condition"],
            frozenset([field]),
            (_EVENTS[trigger["events"]],),
            trigger["events"] == "UPDATE",
        )
        for trigger in invariant.compile(change.model).triggers
        if trigger["template"] == "row_trigger"
    ]


@dataclass(frozen=True)
class Change:
    """An instance that is about to be saved.

    Attributes:
        model: the model whose table is checked: the instance's, or a parent.
        instance: the future row.
        exclude: names of fields to leave out.
        using: the database.
    """

    model: type[Model]
    instance: Model
    exclude: frozenset[str]
    using: str

    def passes(self, item: Declared) -> bool:
        """Whether the invariant allows the change, as far as it can be checked before the write."""
        try:
            rules = rules_of(item.invariant, self)
        except (Refused, InvalidDeclaration):
            # The system checks report it; there is no trigger.
            return True
        return not any(self._breaks(rule, item) for rule in rules)

    def default_message(self, item: Declared) -> str:
        """The message of a violation that declares none, as the database would raise it."""
        invariant = item.invariant
        if not isinstance(invariant, Transition):
            return invariant.default_message(item.label)
        before, after, is_new = self._states(fields.column_field(self.model, invariant.field))
        message = invariant.states_message(before, after, is_new=is_new)
        return invariant.displayed(message, self.model)

    def _states(self, field: fields.Field) -> tuple[str | None, str | None, bool]:
        """The stored and the future value as text, and whether no row is stored."""
        column = quoting.identifier(str(field.column))
        text = f"SELECT to_jsonb(r.{column}) #>> '{{}}' FROM "  # noqa: S608  (all quoted)
        parts = [f"({text}({self._new_row([field])}) AS r)"]
        if self._may_exist():
            parts += [f"({text}({self._stored()}) AS r)", f"EXISTS ({self._stored()})"]
        with connections[self.using].cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(parts)}")
            after, *stored = cursor.fetchone()
        before, is_stored = stored or (None, False)
        return before, after, not is_stored

    def _breaks(self, rule: Rule, item: Declared) -> bool:
        try:
            row = self._new_row(rule.reads)
            if rule.reads_old:
                rows = f'({row}) AS "new" CROSS JOIN ({self._stored()}) AS "old"'
                return self._may_exist() and self._fetch(f"{_violated(rule, item)} FROM {rows}")
            if len(rule.events) == 1 and self._is_stored() is (pgtrigger.Insert in rule.events):
                return False
            broken = self._fetch(f'{_violated(rule, item)} FROM ({row}) AS "new"')
            return broken and not (rule.spares and self._may_exist() and self._is_spared(rule))
        except _Unknown:
            return False

    def _is_spared(self, rule: Rule) -> bool:
        """Whether the stored row breaks the rule already. Asked only for a row that breaks it."""
        return self._fetch(f'SELECT {rule.spares} FROM ({self._stored()}) AS "old"')  # noqa: S608

    # Whether it is an insert or an update.

    def _may_exist(self) -> bool:
        """Whether a row may already exist; with a parent's key it may be a new child."""
        is_own = type(self.instance)._meta.concrete_model is self.model
        known = None not in self._key()
        return known and not (is_own and self.instance._state.adding)

    def _is_stored(self) -> bool:
        return self._may_exist() and self._fetch(f"SELECT EXISTS ({self._stored()})")

    def _key(self) -> list[Any]:
        return [getattr(self.instance, field.attname) for field in self.model._meta.pk_fields]

    def _stored(self) -> str:
        table = quoting.relation(self.model._meta.db_table)
        key = zip(self.model._meta.pk_fields, self._key(), strict=True)
        found = [
            f"{quoting.identifier(str(field.column))} = {self._literal(field, value)}"
            for field, value in key
        ]
        return f"SELECT * FROM {table} WHERE {' AND '.join(found)}"  # noqa: S608  (all quoted)

    # The future row.

    def _new_row(self, needed: Iterable[fields.Field]) -> str:
        """SQL like ``SELECT … AS "amount", …`` for the future row.

        Raises:
            _Unknown: a value cannot be determined.
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
            raise _Unknown
        compute = self._computes.get(field.name)
        if compute and compute.mode == OBSERVE:
            compute = None
        elif compute and compute.mode == NEW_ROWS and self._may_exist():
            # It depends on the stored row whether the value is computed or stays wrong.
            raise _Unknown
        expression = compute.expression if compute else getattr(field, "expression", None)
        if expression is not None and (compute or field.generated):
            return self._computed(field, expression, (*seen, field.name))
        value = getattr(self.instance, field.attname)
        if self._is_unknown(field, value):
            raise _Unknown
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
            raise _Unknown from error

    # The query to PostgreSQL.

    def _fetch(self, sql: str) -> bool:
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


def _violated(rule: Rule, item: Declared) -> str:
    """The trigger's condition as an expression; muted invariants are never violated."""
    names = {"invariant": item.label, "pgid": item.invariant.get_pgid(item.model)}
    unmuted = templates.fill(compiler.VERSION, "unmuted", names)
    return f"SELECT ({rule.violated}) AND {unmuted}"


#: A cast would truncate values that an assignment refuses.
_LENGTH = re.compile(r"\A(?:varchar|char|character varying|character)\(\d+\)")


def _typed(sql: str, field: fields.Field) -> str:
    """``sql`` as a value of the column's type and collation."""
    db_type = _LENGTH.sub("text", fields.cast_type(field))
    collation = fields.collation(field)
    collate = f" COLLATE {quoting.identifier(collation)}" if collation else ""
    return f"({sql})::{db_type}{collate}"
