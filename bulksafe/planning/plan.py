"""Plans the triggers of an invariant, with one function for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import pgtrigger

from bulksafe import compiler
from bulksafe.declarations import Check, Compute, Immutable, Invariant, Transition, label_of
from bulksafe.exceptions import InvalidDeclaration
from bulksafe.planning import fields, hints, rules
from bulksafe.planning.expressions import NEW, OLD, compile_expression
from bulksafe.planning.problems import Problem, Refused
from bulksafe.planning.subject import Subject, row_trigger, update_triggers
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db import models


def plan(invariant: Invariant, model: type[models.Model]) -> compiler.Trigger:
    """Compile ``invariant`` for ``model``.

    Raises:
        InvalidDeclaration: the system checks refuse it.
    """
    trigger, errors = _compiled(invariant, model)
    if trigger is None or errors:
        listed = "\n".join(f"  bulksafe.{p.id}: {p.fact} {p.fix}" for p in errors)
        raise InvalidDeclaration(f"{label_of(model, invariant)} cannot be compiled:\n{listed}")
    return trigger


def problems_of(invariant: Invariant, model: type[models.Model]) -> list[Problem]:
    """All errors of ``invariant`` on ``model``; without errors, its warnings and hints."""
    _, errors = _compiled(invariant, model)
    return errors or list(hints.hints(invariant, model))


def _compiled(
    invariant: Invariant, model: type[models.Model]
) -> tuple[compiler.Trigger | None, list[Problem]]:
    """The trigger, if the declaration can be compiled, and its errors."""
    errors = [*rules.name_problems(invariant, model), *rules.table_problems(model)]
    if any(problem.id in rules.NO_TABLE for problem in errors):
        return None, errors
    if found := list(rules.problems(invariant, model)):
        return None, [*errors, *found]
    try:
        return triggers(invariant, Subject(invariant, model)), errors
    except Refused as refused:
        # Problems found when the expressions are compiled.
        return None, [*errors, refused.problem]


@singledispatch
def triggers(invariant: Invariant, subject: Subject) -> compiler.Trigger:
    """The triggers that enforce ``invariant``.

    Raises:
        Refused: it cannot be enforced.
    """
    raise NotImplementedError(f"no plan for {type(invariant).__name__}")


@triggers.register(Check)
def _check(check: Check, subject: Subject) -> compiler.Trigger:
    events = rules.events_of(check)
    deletes = events == [pgtrigger.Delete]
    condition = compile_expression(
        subject.model,
        check.condition,
        row=OLD if deletes else NEW,
        annotations=check.annotations,
    )
    rules.refuse_missing_row(check, events, condition)
    # Unknown passes: the negation of unknown is not true.
    violated = f"NOT ({condition.sql})"
    if check.deferred:
        return _deferred(check, subject, violated)
    functions = [subject.refusal(subject.pgid)]
    listed = " OR ".join(event.name for event in events)
    parts = [row_trigger(subject.pgid, subject.pgid, listed, violated)]
    if events == [pgtrigger.Update]:
        parts = update_triggers(subject, violated)
    if not deletes:
        return subject.compiled(functions=functions, triggers=parts)
    rule = _rule_function(check, subject)
    function, trigger = _truncate(subject, rule)
    return subject.compiled(
        functions=[*functions, rule.function, function],
        triggers=[*parts, trigger],
        reads=rule.reads,
    )


@dataclass(frozen=True)
class _RuleFunction:
    """A condition as an SQL function, for run-time queries of a trigger function.

    Names in the condition are resolved when the function is created: the queries run with the
    rights of the function's owner, and only ``pg_catalog`` may be on their search_path.
    """

    function: dict[str, str]
    reads: dict[str, str]

    def called(self, row: str) -> dict[str, str]:
        columns = map(quoting.identifier, self.reads)
        arguments = ", ".join(f"{column} => {row}.{column}" for column in columns)
        return {"rule": self.function["function"], "rule_arguments": arguments}


def _rule_function(check: Check, subject: Subject) -> _RuleFunction:
    condition = compile_expression(
        subject.model, check.condition, bare=True, annotations=check.annotations
    )
    function = {
        "function": subject.owned("rule"),
        "template": "rule_function",
        "condition": condition.sql,
    }
    return _RuleFunction(function, _types_of(condition.reads))


def _types_of(reads: Iterable[tuple[str, fields.Field]]) -> dict[str, str]:
    columns = sorted((field for _, field in reads), key=lambda field: str(field.column))
    return {str(field.column): fields.type_of(field) for field in columns}


def _deferred(check: Check, subject: Subject, violated: str) -> compiler.Trigger:
    columns = [quoting.identifier(c) for c in fields.primary_key_columns(subject.model)]
    rule = _rule_function(check, subject)
    function = subject.refusal(
        subject.pgid,
        body="recheck",
        query="recheck_query",
        security="SECURITY DEFINER",
        **rule.called('"new"'),
        pk_columns=", ".join(f'"new".{column}' for column in columns),
        pk_parameters=", ".join(f"${number}" for number, _ in enumerate(columns, 1)),
        pk_values=", ".join(f"NEW.{column}" for column in columns),
    )
    trigger = {
        "trigger": subject.pgid,
        "template": "deferred_trigger",
        "events": "INSERT OR UPDATE",
        "condition": violated,
        "function": subject.pgid,
    }
    return subject.compiled(
        functions=[rule.function, function], triggers=[trigger], reads=rule.reads
    )


def _truncate(subject: Subject, rule: _RuleFunction) -> tuple[dict[str, str], dict[str, str]]:
    name = subject.owned("truncate")
    function = subject.refusal(
        name,
        body="truncate",
        query="truncate_query",
        security="SECURITY DEFINER",
        **rule.called('"old"'),
    )
    return function, {"trigger": name, "template": "truncate_trigger", "function": name}


@triggers.register(Compute)
def _compute(compute: Compute, subject: Subject) -> compiler.Trigger:
    field = fields.column_field(subject.model, compute.field)
    value = compile_expression(subject.model, compute.expression, bare=True)
    rules.refuse_computed_value(compute, field, value)
    function, guard, unmuted = (subject.owned(kind) for kind in ("value", "guard", "unmuted"))
    shared = {"template": "compute_trigger", "column": field.column, "value": function}
    return subject.compiled(
        functions=[
            {"function": function, "template": "value_function", "expression": f"({value.sql})"},
            {"function": unmuted, "template": "unmuted_function"},
            {
                "function": subject.pgid,
                "template": "compute_function",
                "body": "compute",
                "column": field.column,
                "value": function,
                "is_unmuted": unmuted,
            },
            subject.refusal(guard),
        ],
        triggers=[
            {"trigger": subject.pgid, "timing": "BEFORE", "function": subject.pgid, **shared},
            {"trigger": guard, "timing": "AFTER", "function": guard, **shared},
        ],
        column=field.column,
        column_type=fields.type_of(field),
        reads=_types_of(value.reads),
    )


@triggers.register(Immutable)
def _immutable(immutable: Immutable, subject: Subject) -> compiler.Trigger:
    changed = [
        f"{fields.identity(OLD, field)} IS DISTINCT FROM {fields.identity(NEW, field)}"
        for field in (fields.column_field(subject.model, name) for name in immutable.fields)
    ]
    return subject.compiled(
        functions=[subject.refusal(subject.pgid)],
        triggers=update_triggers(subject, " OR ".join(changed)),
    )


@triggers.register(Transition)
def _transition(transition: Transition, subject: Subject) -> compiler.Trigger:
    field = fields.column_field(subject.model, transition.field)
    old, new = fields.identity(OLD, field), fields.identity(NEW, field)
    edges = [
        f"({_is_in(old, field, [state])} AND {_is_in(new, field, followers)})"
        for state, followers in transition.edges().items()
        if followers
    ]
    moved = f"{old} IS DISTINCT FROM {new}"
    refused = f"{moved} AND NOT ({' OR '.join(edges)})" if edges else moved
    parts = update_triggers(subject, refused)
    if transition.initial is not None:
        starts = _is_in(new, field, list(dict.fromkeys(transition.initial)))
        name = subject.owned("initial")
        parts.append(row_trigger(name, subject.pgid, "INSERT", f"NOT {starts}"))
    # A message of the user's own is not changed.
    named = {"state_field": transition.field, "state_column": str(field.column)}
    states = {} if transition.message else named
    return subject.compiled(functions=[subject.refusal(subject.pgid, **states)], triggers=parts)


def _is_in(column: str, field: fields.Field, states: list[Any]) -> str:
    """SQL that is true or false, never unknown: whether the column has one of ``states``."""
    tests = []
    literals = [fields.value(field, state) for state in states if state is not None]
    if literals:
        tests.append(f"COALESCE({column} IN ({', '.join(literals)}), false)")
    if None in states:
        tests.append(f"{column} IS NULL")
    return f"({' OR '.join(tests)})" if tests else "false"
