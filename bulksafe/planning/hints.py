"""Warnings and hints for valid declarations, such as a plain Django alternative."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.db.models import F, Q
from django.db.models import functions as f
from django.db.models.expressions import (
    Case,
    CombinedExpression,
    ExpressionWrapper,
    NegatedExpression,
    Value,
    When,
)

from bulksafe.declarations import Capture, Check, Compute, Immutable, Invariant, Transition
from bulksafe.declarations.compute import computes_of, dependencies
from bulksafe.declarations.dependencies import field_name, referenced_names
from bulksafe.declarations.modes import ENFORCE, NEW
from bulksafe.planning import fields
from bulksafe.planning.expressions import OLD, compile_expression
from bulksafe.planning.problems import Problem
from bulksafe.planning.rules import invariants_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from django.db import models


@singledispatch
def hints(invariant: Invariant, model: type[models.Model]) -> Iterator[Problem]:
    """Warnings and hints about a declaration that has no errors."""
    raise NotImplementedError(f"no hints for {type(invariant).__name__}")


def _is_elsewhere(invariant: Invariant) -> bool:
    """Whether the model belongs to a different app and cannot be changed."""
    return invariant.is_attached


@hints.register(Capture)
def _capture(capture: Capture, model: type[models.Model]) -> Iterator[Problem]:
    return iter(())


# Check


@hints.register(Check)
def _check(check: Check, model: type[models.Model]) -> Iterator[Problem]:
    rows = {fields.row_named(model, name) for name in referenced_names(check.condition)}
    plain = not check.deferred and check.operation is None and not check.annotations
    if check.mode == NEW:
        yield from _mode_hints(check, rows)
    if plain and check.mode == ENFORCE and not model._meta.proxy and not any(rows):
        yield Problem(
            "I001",
            "Django's own CheckConstraint can hold this rule.",
            "It needs no trigger. Keep the Check if you want its error, bulksafe.muted or no scan "
            "of the existing rows when it is added.",
        )


def _mode_hints(check: Check, rows: Collection[str]) -> Iterator[Problem]:
    is_for_deletes = check.operation is not None and pgtrigger.Delete in list(check.operation)
    if is_for_deletes or OLD in rows:
        yield _no_old_violation(
            "a rule for deletion" if is_for_deletes else "a rule over the old and the new row"
        )


def _no_old_violation(rule: str) -> Problem:
    return Problem(
        "I003",
        f'mode="new" has no effect on {rule}: no stored row breaks it.',
        'It is enforced. Leave mode= out, or write mode="observe" to record violations.',
    )


# Compute


@hints.register(Compute)
def _compute(compute: Compute, model: type[models.Model]) -> Iterator[Problem]:
    field = fields.column_field(model, compute.field)
    read = compile_expression(model, compute.expression, bare=True).reads
    if not read:
        yield Problem(
            "W054",
            f"The expression reads no column: “{field.name}” is the same in every row.",
            "Use a db_default, or name a column in the expression.",
        )
    if not _is_elsewhere(compute):
        yield from _field_hints(field)
    plain = compute.mode == ENFORCE and read and not model._meta.proxy
    if plain and _generated_is_enough(compute, field, model):
        yield Problem(
            "I002",
            "Django's own GeneratedField can hold this value.",
            "It needs no trigger. Keep the Compute if you want to change the expression without "
            "rewriting the table, to compute from it, or bulksafe.muted.",
        )


def _field_hints(field: fields.Field) -> Iterator[Problem]:
    if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
        yield Problem(
            "W004",
            f"“{field.name}” is computed, so the value of auto_now is overwritten.",
            "Remove auto_now and auto_now_add.",
        )
    elif field.editable:
        yield Problem(
            "W003",
            f"“{field.name}” is computed, but forms still show it.",
            f"Add editable=False to {field.name}.",
        )


#: Expressions that PostgreSQL accepts in a generated column, if their inputs are in _TIMELESS.
_IMMUTABLE = (
    *(F, Q, Value, Case, When, CombinedExpression, NegatedExpression, ExpressionWrapper),
    *(f.Abs, f.Ceil, f.Coalesce, f.Floor, f.Greatest, f.Least, f.Mod, f.NullIf, f.Power, f.Round),
    *(f.Left, f.Length, f.Lower, f.LTrim, f.Replace, f.Right, f.RTrim, f.Substr, f.Trim, f.Upper),
)
_TIMELESS = ("number", "text", "boolean", "uuid")


def _generated_is_enough(compute: Compute, field: fields.Field, model: type[models.Model]) -> bool:
    """A generated column reads plain columns only, and no BEFORE trigger can read it."""
    graph = dependencies(model)
    name = field_name(model, field.name)
    chained = graph.inputs(name) or any(name in graph.inputs(other) for other in graph.expressions)
    mentioned = [field_name(model, path.split("__")[0]) for path in _paths(compute)]
    read: list[Any] = [
        model._meta.get_field(path) for path in mentioned if fields.has_field(model, path)
    ]
    return (
        not chained
        and not field.is_relation
        and _is_immutable(compute.expression)
        and all(not r.generated and fields.family(r) in _TIMELESS for r in read)
    )


def _paths(compute: Compute) -> list[str]:
    return [path.removeprefix("new__") for path in referenced_names(compute.expression)]


def _is_immutable(node: object) -> bool:
    if isinstance(node, Q):
        return all(_is_immutable(child) for child in node.children)
    if isinstance(node, tuple):
        # A lookup in a Q.
        return not hasattr(node[1], "resolve_expression") or _is_immutable(node[1])
    if not isinstance(node, _IMMUTABLE):
        return False
    children = node.get_source_expressions() if hasattr(node, "get_source_expressions") else []
    return all(_is_immutable(child) for child in children if child is not None)


# Immutable


@hints.register(Immutable)
def _immutable(immutable: Immutable, model: type[models.Model]) -> Iterator[Problem]:
    if immutable.mode == NEW:
        yield _no_old_violation("an Immutable")
    computed = computes_of(model)
    for name in (field_name(model, name) for name in immutable.fields):
        if name in computed:
            yield Problem(
                "W080",
                f"“{name}” is immutable and computed: an update of its inputs is refused.",
                "If that is intended, make the inputs immutable: the error is clearer then.",
            )
        elif getattr(model._meta.get_field(name), "auto_now", False):
            yield Problem(
                "W063",
                f"“{name}” is immutable, and auto_now changes it in every save().",
                "Use auto_now_add, or leave it out of the Immutable.",
            )


# Transition


@hints.register(Transition)
def _transition(transition: Transition, model: type[models.Model]) -> Iterator[Problem]:
    field = fields.column_field(model, transition.field)
    frozen = [
        other.name
        for other in invariants_of(model, Immutable)
        if field.name in [field_name(model, name) for name in other.fields]
    ]
    if frozen:
        yield Problem(
            "W081",
            f"“{field.name}” is immutable, by “{frozen[0]}”: no transition can happen.",
            "Remove one of the two.",
        )
    if transition.initial is not None:
        yield from _initial_hints(transition, field)


def _initial_hints(transition: Transition, field: fields.Field) -> Iterator[Problem]:
    initial = list(transition.initial or ())
    if field.has_default() and not callable(field.default) and field.default not in initial:
        yield Problem(
            "W077",
            f"The default of “{field.name}”, {field.default!r}, is not among the initial states: "
            "a row without a state is refused.",
            "Add it to initial=, or change the default.",
        )
    unreachable = [s for s in transition.edges() if s not in _reachable(transition, initial)]
    if unreachable:
        listed = ", ".join(repr(fields.plain(state)) for state in unreachable)
        yield Problem(
            "W079",
            f"No row can reach these states, which have followers: {listed}.",
            "Add a transition that leads there, or add them to initial=.",
        )


def _reachable(transition: Transition, initial: list[Any]) -> set[Any]:
    edges = transition.edges()
    found: set[Any] = set()
    waiting = list(initial)
    while waiting:
        state = waiting.pop()
        if state not in found:
            found.add(state)
            waiting += edges.get(state, [])
    return found
