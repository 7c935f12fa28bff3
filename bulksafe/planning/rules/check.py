"""Checks the arguments of a ``Check``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.db.models import CheckConstraint, F, Q

from bulksafe.declarations import Check
from bulksafe.declarations.dependencies import referenced_names
from bulksafe.planning import fields, slips
from bulksafe.planning.expressions import NEW, OLD, RowSQL
from bulksafe.planning.problems import Problem, Refused, shown

if TYPE_CHECKING:
    from django.db import models


def check_problems(check: Check, model: type[models.Model]) -> list[Problem]:
    if check.condition is None and check.annotations:
        return list(slips.annotations_for_a_condition(check))
    return [
        *_condition_problems(check.condition),
        *_deferred_problems(check),
        *_operation_problems(check.operation),
    ]


def _condition_problems(condition: object) -> Iterator[Problem]:
    if condition is None or (isinstance(condition, Q) and not condition):
        yield Problem(
            "E040", "The Check has no condition.", "Write Check(Q(amount__gte=0), name=…)."
        )
    elif isinstance(condition, type) or not getattr(condition, "conditional", False):
        yield Problem(
            "E041",
            f"The condition {shown(condition)} is neither true nor false.",
            _condition_fix(condition),
        )


def _condition_fix(condition: object) -> str:
    if isinstance(condition, F):
        return f"For a boolean column write Q({condition.name}=True)."  # type: ignore[attr-defined]
    if isinstance(condition, CheckConstraint):
        return "Pass its condition, or put the CheckConstraint into Meta.constraints."
    if isinstance(condition, pgtrigger.Condition):
        return "Write a Q with old__… and new__…, or an Immutable."
    return "Write a Q(…), a lookup, or an expression whose output_field is a BooleanField."


def _deferred_problems(check: Check) -> Iterator[Problem]:
    deferred: object = check.deferred
    if not isinstance(deferred, bool):
        yield Problem(
            "E048", f"deferred is {shown(deferred)}, not True or False.", "Write deferred=True."
        )
    elif deferred and check.operation is not None:
        yield Problem(
            "E045",
            "A deferred Check tests the row at the commit, for any operation.",
            "Leave operation= or deferred= out.",
        )


def _operation_problems(operation: object) -> Iterator[Problem]:
    if operation is None:
        return
    if not isinstance(operation, pgtrigger.Operation):
        yield Problem(
            "E046",
            f"operation is {shown(operation)}, which is not an operation.",
            "Write operation=pgtrigger.Insert, Update or Delete, joined with |.",
        )
    elif any(event.name not in _EVENTS for event in _split(operation)):
        yield Problem(
            "E046",
            f"A rule over the columns of a row cannot be enforced for {operation}.",
            "Use pgtrigger.Insert, Update and Delete. A rule for updates tests every update; "
            "test for changes with old__… and new__….",
        )
    elif pgtrigger.Delete in _split(operation) and len(_split(operation)) > 1:
        yield Problem(
            "E047",
            "One Check cannot be for deletes and for other operations: a delete has no new row.",
            "Declare two: one with operation=pgtrigger.Delete.",
        )


_EVENTS = ("INSERT", "UPDATE", "DELETE")


def _split(operation: pgtrigger.Operation) -> list[Any]:
    # pgtrigger.UpdateOf has no name.
    events = [event if hasattr(event, "name") else _Unnamed for event in operation]
    return list(dict.fromkeys(events))


class _Unnamed:
    name = "UPDATE OF"


def events_of(check: Check, model: type[models.Model]) -> list[Any]:
    """The operations of the check on a model."""
    if check.operation is not None:
        return sorted(_split(check.operation), key=lambda event: _EVENTS.index(event.name))
    mentions_old = any(
        fields.row_named(model, name) == OLD
        for expression in (check.condition, *check.annotations.values())
        for name in referenced_names(expression)
    )
    return [pgtrigger.Update] if mentions_old else [pgtrigger.Insert, pgtrigger.Update]


def refuse_missing_row(check: Check, events: list[Any], condition: RowSQL) -> None:
    """Refuse a condition that reads a missing row, or no row at all."""
    constant = condition.sql if condition.sql in ("true", "false") else ""
    if constant or not condition.reads:
        same = f"it is {constant} for every row" if constant else "it is the same for every row"
        raise Refused(
            "E042",
            f"The condition depends on no column: {same}.",
            "Use a column of the model in it; check for an empty list after __in.",
        )
    if pgtrigger.Insert in events and OLD in condition.rows():
        raise Refused(
            "E043",
            "The condition reads the old row, but an insert has none.",
            "Leave operation= out (it is a rule for updates then), or write "
            "operation=pgtrigger.Update.",
        )
    if pgtrigger.Delete in events and NEW in condition.rows():
        raise Refused(
            "E044",
            "The condition reads the new row, but a delete has none.",
            "Write old__… or the plain name for the row that is deleted.",
        )
    if check.deferred and OLD in condition.rows():
        raise Refused(
            "E045",
            "A deferred Check tests the row at the commit, when the old row no longer exists.",
            "Leave deferred= out.",
        )
