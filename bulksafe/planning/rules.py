"""What a declaration must be like, apart from what its expressions say."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from functools import singledispatch
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import pgtrigger
from django.db import connections, router
from django.db.models import CheckConstraint, F, Q
from django.utils.functional import Promise

from bulksafe.caching import models_of
from bulksafe.declarations import Capture, Check, Compute, Immutable, Invariant, Transition
from bulksafe.declarations.compute import dependencies
from bulksafe.declarations.dependencies import field_name, referenced_names
from bulksafe.planning import fields, sessions, slips
from bulksafe.planning.expressions import NEW, OLD, RowSQL
from bulksafe.planning.problems import Problem, Refused, did_you_mean, shown
from bulksafe.rendering import names

if TYPE_CHECKING:
    from django.db import models

Declaration = TypeVar("Declaration", bound=Invariant)

#: Problems that leave nothing to put a trigger on.
NO_TABLE = ("E006", "E007")


def name_problems(invariant: Invariant, model: type[models.Model]) -> Iterator[Problem]:
    """The name and the message."""
    kind = type(invariant).__name__
    derived = _has_derived_name(invariant)
    if invariant.given_name is not None and not isinstance(invariant.given_name, str):
        yield Problem(
            "E004",
            f"The name is {shown(invariant.given_name)}, not text.",
            f'Write {kind}(…, name="what_must_hold").',
        )
    elif not invariant.name:
        line = f'{kind}(…, name="what_must_hold")'
        if isinstance(invariant, Check):
            line = slips.without_a_name(invariant)
        yield Problem("E002", f"The {kind} has no name.", f"Write {line}.")
    elif not derived and len(invariant.name) > names.MAX_NAME_LENGTH:
        shorter = invariant.name[: names.MAX_NAME_LENGTH].rstrip("_-")
        yield Problem(
            "E003",
            f"The name has {len(invariant.name)} characters; {names.MAX_NAME_LENGTH} is the most.",
            f'Shorten it, for example name="{shorter}".',
        )
    elif not derived and not names.VALID_NAME.match(invariant.name):
        yield Problem(
            "E004",
            f"The name {invariant.name!r} has other characters than letters, digits, “-” and “_”.",
            f'Write name="{names.slug(invariant.name)}".',
        )
    message: object = invariant.message
    if message is not None and not isinstance(message, str | Promise):
        yield Problem(
            "E011",
            f"The message is {shown(message)}, not text.",
            'Write message="…" or message=gettext_lazy("…").',
        )


def _has_derived_name(invariant: Invariant) -> bool:
    """Whether the name was made from field names, which may be anything that Django allows."""
    if isinstance(invariant, Compute):
        return invariant.name == invariant.default_name
    if isinstance(invariant, Transition):
        return invariant.name == f"transition_{invariant.field}"
    if isinstance(invariant, Immutable):
        return invariant.name == invariant.default_name
    return False


def table_problems(model: type[models.Model]) -> Iterator[Problem]:
    """Whether there is a PostgreSQL table to put triggers on."""
    meta = model._meta
    if meta.abstract or meta.swapped:
        yield Problem(
            "E006",
            f"{meta.label} has no table: it is "
            f"{'abstract' if meta.abstract else f'swapped for {meta.swapped}'}.",
            "Declare the invariant on the model that is used.",
        )
    elif not (meta.concrete_model or model)._meta.managed:
        yield Problem(
            "E006",
            f"{meta.label} is unmanaged: migrations do not make its table, and it may be a view.",
            "Declare the invariant on the model that owns the table, or set managed = True.",
        )
    elif (alias := router.db_for_write(model)) and connections[alias].vendor != "postgresql":
        yield Problem(
            "E007",
            f"{meta.label} is written to the database “{alias}”, which is not PostgreSQL "
            f"({connections[alias].vendor}).",
            "Route the model to a PostgreSQL database, or keep the rule in Python.",
        )


@singledispatch
def problems(invariant: Invariant, model: type[models.Model]) -> list[Problem]:
    """What can be said of the arguments alone."""
    raise NotImplementedError(f"no rules for {type(invariant).__name__}")


@problems.register(Capture)
def _capture(capture: Capture, model: type[models.Model]) -> list[Problem]:
    """Nobody writes a capture: what is wrong with receivers is said of them."""
    return []


# Check


@problems.register(Check)
def _check(check: Check, model: type[models.Model]) -> list[Problem]:
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
            "A deferred Check judges the row as it is at the commit, whatever was done to it.",
            "Leave operation= or deferred= out.",
        )


def _operation_problems(operation: object) -> Iterator[Problem]:
    if operation is None:
        return
    if not isinstance(operation, pgtrigger.Operation):
        yield Problem(
            "E046",
            f"operation is {shown(operation)}, which is no operation.",
            "Write operation=pgtrigger.Insert, Update or Delete, joined with |.",
        )
    elif any(event.name not in _EVENTS for event in _split(operation)):
        yield Problem(
            "E046",
            f"A rule over the columns of a row cannot be kept for {operation}.",
            "Use pgtrigger.Insert, Update and Delete. A rule for updates looks at every update; "
            "what changed can be asked with old__… and new__….",
        )
    elif pgtrigger.Delete in _split(operation) and len(_split(operation)) > 1:
        yield Problem(
            "E047",
            "One Check cannot be for deletes and for other operations: a delete has no new row.",
            "Declare two: one with operation=pgtrigger.Delete.",
        )


_EVENTS = ("INSERT", "UPDATE", "DELETE")


def _split(operation: pgtrigger.Operation) -> list[Any]:
    # pgtrigger.UpdateOf has no name of its own.
    events = [event if hasattr(event, "name") else _Unnamed for event in operation]
    return list(dict.fromkeys(events))


class _Unnamed:
    name = "UPDATE OF"


def events_of(check: Check) -> list[Any]:
    """The operations that the check is for."""
    if check.operation is not None:
        return sorted(_split(check.operation), key=lambda event: _EVENTS.index(event.name))
    mentions_old = any(
        name.startswith("old__")
        for expression in (check.condition, *check.annotations.values())
        for name in referenced_names(expression)
    )
    return [pgtrigger.Update] if mentions_old else [pgtrigger.Insert, pgtrigger.Update]


def refuse_missing_row(check: Check, events: list[Any], condition: RowSQL) -> None:
    """Refuse a condition that reads a row which the operation does not have, or no row at all."""
    constant = condition.sql if condition.sql in ("true", "false") else ""
    if constant or not condition.reads:
        same = f"it is {constant} for every row" if constant else "it is the same for every row"
        raise Refused(
            "E042",
            f"The condition depends on no column: {same}.",
            "Name a column of the model in it; look for an empty list after __in.",
        )
    if pgtrigger.Insert in events and OLD in condition.rows():
        raise Refused(
            "E043",
            "The condition reads the old row, and an insert has none.",
            "Leave operation= out (it is a rule for updates then), or write "
            "operation=pgtrigger.Update.",
        )
    if pgtrigger.Delete in events and NEW in condition.rows():
        raise Refused(
            "E044",
            "The condition reads the new row, and a delete has none.",
            "Write old__… or the plain name for the row that is deleted.",
        )
    if check.deferred and OLD in condition.rows():
        raise Refused(
            "E045",
            "A deferred Check judges the row as it is at the commit; the old row is gone by then.",
            "Leave deferred= out.",
        )


# Compute


@problems.register(Compute)
def _compute(compute: Compute, model: type[models.Model]) -> list[Problem]:
    if (problem := slips.swapped(compute)) is not None:
        return [problem]
    try:
        field = fields.column_field(model, compute.field)
    except Refused as refused:
        return [refused.problem]
    return [*_target_problems(compute, field, model), *_order_problems(compute, field, model)]


def _target_problems(
    compute: Compute, field: fields.Field, model: type[models.Model]
) -> Iterator[Problem]:
    if compute.expression is None:
        yield Problem(
            "E050",
            f"The Compute of “{field.name}” has no expression.",
            'Write Compute("net", F("amount") - F("discount")).',
        )
    if field.primary_key or field.name in {f.name for f in model._meta.pk_fields}:
        yield Problem(
            "E051",
            f"“{field.name}” is in the primary key, by which other rows and Django find the row.",
            "Compute another column.",
        )
    if field.generated:
        yield Problem(
            "E056",
            f"“{field.name}” is a GeneratedField: PostgreSQL computes it already.",
            "Remove the Compute, or make it an ordinary field.",
        )


def _order_problems(
    compute: Compute, field: fields.Field, model: type[models.Model]
) -> Iterator[Problem]:
    same = [c for c in invariants_of(model, Compute) if field_name(model, c.field) == field.name]
    if len(same) > 1 and same[0] is not compute:
        yield Problem(
            "E052",
            f"“{field.name}” is computed twice, also by “{same[0].name}”.",
            "Remove one of them.",
        )
    graph = dependencies(model)
    graph = replace(graph, expressions={**graph.expressions, field.name: compute.expression})
    if cycle := graph.cycle(field.name):
        yield Problem(
            "E053",
            f"The computed fields depend on each other in a circle: {' → '.join(cycle)}.",
            "Write one of them in terms of columns that are not computed.",
        )


def invariants_of(model: type[models.Model], kind: type[Declaration]) -> list[Declaration]:
    """The invariants of a kind on the table of ``model``: its own and those of its proxies."""
    concrete = model._meta.concrete_model
    return [
        trigger
        for other in models_of(model._meta.apps, include_auto_created=True)
        if other._meta.concrete_model is concrete
        for trigger in getattr(other._meta, "triggers", None) or ()
        if isinstance(trigger, kind)
    ]


def refuse_computed_value(compute: Compute, field: fields.Field, value: RowSQL) -> None:
    """Refuse a value that the column cannot take, or that is made from the old row."""
    if OLD in value.rows():
        raise Refused(
            "E057",
            "The expression reads the old row: it could not be checked for a row that lies there.",
            "Write it in terms of the row itself, or declare a Check with old__….",
        )
    target = fields.family(field)
    source = value.output_field and fields.family(value.output_field)
    if target and source and target not in ("text", source):
        given, wanted = value.output_field.get_internal_type(), field.get_internal_type()  # type: ignore[union-attr]
        raise Refused(
            "E055",
            f"The expression gives {given}, and “{field.name}” is {wanted}.",
            f"Wrap it: Cast(…, {wanted}()).",
        )
    sessions.refuse_conversion(value.output_field, field)


# Immutable


@problems.register(Immutable)
def _immutable(immutable: Immutable, model: type[models.Model]) -> list[Problem]:
    if (problem := slips.listed(immutable)) is not None:
        return [problem]
    found = []
    if not immutable.fields:
        found.append(
            Problem("E061", "The Immutable names no field.", 'Write Immutable("number", …).')
        )
    named = [field_name(model, name) for name in immutable.fields]
    found += [
        Problem("E062", f"Immutable names “{name}” twice.", "Name it once.")
        for name in dict.fromkeys(named)
        if named.count(name) > 1
    ]
    return [*found, *_column_problems(model, immutable.fields)]


def _column_problems(model: type[models.Model], listed: Iterable[object]) -> Iterator[Problem]:
    for name in listed:
        try:
            fields.column_field(model, name)
        except Refused as refused:
            yield refused.problem


# Transition


@problems.register(Transition)
def _transition(transition: Transition, model: type[models.Model]) -> list[Problem]:
    found = list(_column_problems(model, [transition.field]))
    found += [*_graph_problems(transition), *_initial_problems(transition)]
    if not found:
        found += _state_problems(transition, fields.column_field(model, transition.field))
    return found


def _graph_problems(transition: Transition) -> Iterator[Problem]:
    allowed: object = transition.allowed
    if not isinstance(allowed, Mapping):
        yield Problem(
            "E071",
            f"allowed is {shown(allowed)}, not a dict of states.",
            'Write {"draft": ["paid", "cancelled"], "paid": ["shipped"]}.',
        )
        return
    if not allowed:
        yield Problem(
            "E075",
            "allowed is empty: no change would ever be allowed.",
            f"Use Immutable({transition.field!r}) if that is meant.",
        )
    for state, followers in allowed.items():
        if not _is_listed(followers):
            wanted = [] if followers is None else [followers]
            yield Problem(
                "E074",
                f"The states after {state!r} are {shown(followers)}, not a list.",
                f"Write {{{state!r}: {wanted!r}}}.",
            )
        else:
            yield from _unhashable(followers)


def _initial_problems(transition: Transition) -> Iterator[Problem]:
    initial: object = transition.initial
    if initial is None:
        return
    if not _is_listed(initial):
        yield Problem(
            "E074", f"initial is {shown(initial)}, not a list.", f"Write initial=[{initial!r}]."
        )
    elif not list(initial):
        yield Problem(
            "E073",
            "initial is empty: no row could be inserted.",
            "List the states that a new row may have, or leave initial= out.",
        )
    else:
        yield from _unhashable(initial)


def _is_listed(states: object) -> TypeGuard[Iterable[Any]]:
    return hasattr(states, "__iter__") and not isinstance(states, str | bytes)


def _unhashable(states: Iterable[Any]) -> Iterator[Problem]:
    for state in states:
        if not isinstance(state, Hashable):
            yield Problem(
                "E078",
                f"The state {shown(state)} is a {type(state).__name__}, not one value.",
                "Write each state by itself.",
            )


def _states(transition: Transition) -> list[Any]:
    listed: list[Any] = list(transition.initial or ())
    for state, followers in transition.edges().items():
        listed += [state, *followers]
    return list(dict.fromkeys(listed))


def _state_problems(transition: Transition, field: fields.Field) -> Iterator[Problem]:
    choices = [value for value, _ in field.flatchoices]
    for state in _states(transition):
        if state is None:
            if not field.null:
                yield Problem(
                    "E076", f"None is a state, and “{field.name}” cannot be NULL.", "Remove it."
                )
        elif choices and state not in choices:
            yield _unknown_state(state, field, choices)
        else:
            try:
                fields.value(field, state)
            except Refused as refused:
                yield refused.problem


def _unknown_state(state: object, field: fields.Field, choices: list[Any]) -> Problem:
    listed = f"Its choices are {', '.join(repr(fields.plain(choice)) for choice in choices)}."
    meant = state.value if isinstance(state, Enum) else str(state)
    fix = f"Write {meant!r}." if meant in choices else did_you_mean(meant, choices, listed)
    return Problem("E072", f"{shown(state)} is not among the choices of “{field.name}”.", fix)
