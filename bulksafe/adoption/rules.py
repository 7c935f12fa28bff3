"""What an invariant says about a stored row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING

import pgtrigger

from bulksafe.adoption.errors import Unusable
from bulksafe.declarations import Check, Compute, Immutable, Invariant, Transition
from bulksafe.exceptions import InvalidDeclaration
from bulksafe.planning import Refused, fields
from bulksafe.planning.expressions import NEW, compile_expression
from bulksafe.planning.rules import events_of
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.adoption.tables import Table
    from bulksafe.declarations import Declared


@dataclass(frozen=True)
class Rule:
    """What the trigger enforces, for a row of the table.

    Attributes:
        violated: SQL over the row ``new``; true if the row breaks the rule.
        expected: SQL for the right value of a computed column, otherwise an empty string.
        meaning: what a violation is, where that is not what the declaration says.
    """

    violated: str
    expected: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class NothingAtRest:
    """The invariant is about changes: a row cannot break it.

    Attributes:
        reason: a sentence for the user.
    """

    reason: str


def rule_of(item: Declared, table: Table) -> Rule | NothingAtRest:
    """What ``item`` says about the rows of ``table``.

    Raises:
        Unusable: the declaration has an error, or a column is missing.
    """
    try:
        # Also reports what cannot be enforced, which an expression alone does not show.
        item.invariant.compile(item.model)
        return at_rest(item.invariant, item.model, table)
    except InvalidDeclaration as error:
        raise Unusable(str(error)) from error
    except Refused as refused:
        raise Unusable(f"{refused.problem.fact} {refused.problem.fix}") from refused


@singledispatch
def at_rest(invariant: Invariant, model: type[Model], table: Table) -> Rule | NothingAtRest:
    raise NotImplementedError(f"no verification for {type(invariant).__name__}")


@at_rest.register(Check)
def _check(check: Check, model: type[Model], table: Table) -> Rule | NothingAtRest:
    events = [event.name for event in events_of(check, model)]
    # A deferred Check is tested after inserts and updates, whatever its columns are called.
    if not check.deferred and events != [pgtrigger.Insert.name, pgtrigger.Update.name]:
        return _about_changes(" and ".join(event.lower() for event in events))
    condition = compile_expression(model, check.condition, annotations=check.annotations)
    return Rule(f"NOT ({condition.sql})")


@at_rest.register(Compute)
def _compute(compute: Compute, model: type[Model], table: Table) -> Rule:
    field = fields.column_field(model, compute.field)
    # Like the function of the trigger: the columns are its parameters.
    value = compile_expression(model, compute.expression, bare=True)
    names = sorted({quoting.identifier(str(read.column)) for _, read in value.reads})
    inputs = ", ".join(f'"new".{name} AS {name}' for name in names)
    source = f' FROM (SELECT {inputs}) AS "inputs"' if inputs else ""
    column = table.columns.get(str(field.column))
    if column is None:
        raise Unusable(f"The table has no column “{field.column}”. Run migrate first.")
    expected = column.comparable(f"(SELECT {value.sql}{source})")
    stored = fields.column(NEW, field)
    return Rule(f"{stored}{column.as_text} IS DISTINCT FROM {expected}", expected)


@at_rest.register(Immutable)
def _immutable(immutable: Immutable, model: type[Model], table: Table) -> NothingAtRest:
    return _about_changes("update")


def _about_changes(operations: str) -> NothingAtRest:
    return NothingAtRest(f"It is a rule for each {operations}: a stored row cannot break it.")


@at_rest.register(Transition)
def _transition(transition: Transition, model: type[Model], table: Table) -> Rule:
    field = fields.column_field(model, transition.field)
    states = transition.states()
    known = fields.is_one_of(fields.identity(NEW, field), field, states)
    meaning = (
        f"The value of “{field.name}” is no state of the Transition: no update can change it. "
        "Correct the rows, or list the state"
    )
    if None not in states and field.null:
        meaning += " (None stands for NULL)"
    return Rule(f"NOT {known}", meaning=f"{meaning}.")
