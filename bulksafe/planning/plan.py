"""Plans the triggers of an invariant, with one function for each kind."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from bulksafe import compiler
from bulksafe.declarations import Immutable, Invariant, Transition, label_of
from bulksafe.declarations.modes import NEW as NEW_ROWS
from bulksafe.exceptions import InvalidDeclaration
from bulksafe.planning import fields, hints, rules
from bulksafe.planning.expressions import NEW, OLD
from bulksafe.planning.problems import Problem, Refused
from bulksafe.planning.subject import Subject, row_trigger, update_triggers

if TYPE_CHECKING:
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
    errors = [
        *rules.name_problems(invariant, model),
        *rules.mode_problems(invariant),
        *rules.table_problems(model),
    ]
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


@triggers.register(Immutable)
def _immutable(immutable: Immutable, subject: Subject) -> compiler.Trigger:
    changed = [
        f"{fields.identity(OLD, field)} IS DISTINCT FROM {fields.identity(NEW, field)}"
        for field in (fields.column_field(subject.model, name) for name in immutable.fields)
    ]
    return subject.compiled(
        functions=[subject.verdict_on_change(subject.pgid)],
        triggers=update_triggers(subject, " OR ".join(changed)),
    )


@triggers.register(Transition)
def _transition(transition: Transition, subject: Subject) -> compiler.Trigger:
    field = fields.column_field(subject.model, transition.field)
    old, new = fields.identity(OLD, field), fields.identity(NEW, field)
    edges = [
        f"({fields.is_one_of(old, field, [state])} AND {fields.is_one_of(new, field, followers)})"
        for state, followers in transition.edges().items()
        if followers
    ]
    if transition.mode == NEW_ROWS:
        known = transition.states()
        was, becomes = (fields.is_one_of(row, field, known) for row in (old, new))
        edges.append(f"(NOT {was} AND {becomes})")
    moved = f"{old} IS DISTINCT FROM {new}"
    refused = f"{moved} AND NOT ({' OR '.join(edges)})" if edges else moved
    parts = update_triggers(subject, refused)
    if transition.initial is not None:
        starts = fields.is_one_of(new, field, list(dict.fromkeys(transition.initial)))
        name = subject.owned("initial")
        parts.append(row_trigger(name, subject.pgid, "INSERT", f"NOT {starts}"))
    # A message of the user's own is not changed.
    named = {"state_field": transition.field, "state_column": str(field.column)}
    verdict = subject.verdict_on_change(subject.pgid, **({} if transition.message else named))
    return subject.compiled(functions=[verdict], triggers=parts)
