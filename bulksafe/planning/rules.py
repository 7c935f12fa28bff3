"""What a declaration must be like, apart from what its expressions say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.db import connections, router
from django.db.models import Q
from django.utils.functional import Promise

from bulksafe.declarations import Check, Compute, Immutable, Invariant, Transition
from bulksafe.declarations.compute import computes_of, dependencies
from bulksafe.declarations.dependencies import field_name, referenced_names
from bulksafe.planning import fields
from bulksafe.planning.expressions import NEW, OLD, RowSQL
from bulksafe.planning.problems import Problem, Refused, did_you_mean
from bulksafe.rendering import names

if TYPE_CHECKING:
    from django.db import models

#: Problems that leave nothing to put a trigger on.
NO_TABLE = ("E006", "E007")


def name_problems(invariant: Invariant, model: type[models.Model]) -> Iterator[Problem]:
    """The name and the message."""
    kind = type(invariant).__name__
    derived = _has_derived_name(invariant)
    if not invariant.name:
        yield Problem(
            "E002", f"The {kind} has no name.", f'Write {kind}(…, name="what_must_hold").'
        )
    elif not derived and len(invariant.name) > names.MAX_NAME_LENGTH:
        yield Problem(
            "E003",
            f"The name has {len(invariant.name)} characters; {names.MAX_NAME_LENGTH} is the most.",
            f'Shorten it, for example name="{invariant.name[: names.MAX_NAME_LENGTH].rstrip("_-")}".',
        )
    elif not derived and not names.VALID_NAME.match(invariant.name):
        yield Problem(
            "E004",
            f"The name {invariant.name!r} has other characters than letters, digits, “-” and “_”.",
            f'Write name="{names.slug(invariant.name)}".',
        )
    if invariant.message is not None and not isinstance(invariant.message, str | Promise):
        yield Problem(
            "E011",
            f"The message is {invariant.message!r}, not text.",
            'Write message="…" or message=gettext_lazy("…").',
        )


def _has_derived_name(invariant: Invariant) -> bool:
    """Whether the name was made from field names, which may be anything that Django allows."""
    if isinstance(invariant, Compute):
        return invariant.name == f"compute_{invariant.field}"
    if isinstance(invariant, Transition):
        return invariant.name == f"transition_{invariant.field}"
    if isinstance(invariant, Immutable):
        return invariant.name == "immutable_" + "_".join(str(f) for f in invariant.fields)
    return False


def table_problems(model: type[models.Model]) -> Iterator[Problem]:
    """Whether there is a PostgreSQL table to put triggers on."""
    meta = model._meta
    if meta.abstract or meta.swapped:
        yield Problem(
            "E006",
            f"{meta.label} has no table: it is {'abstract' if meta.abstract else f'swapped for {meta.swapped}'}.",
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


# Check


@problems.register(Check)
def _check(check: Check, model: type[models.Model]) -> list[Problem]:
    return [*_condition_problems(check), *_operation_problems(check), *_enough_problems(check)]


def _condition_problems(check: Check) -> Iterator[Problem]:
    condition = check.condition
    if condition is None or (isinstance(condition, Q) and not condition):
        yield Problem(
            "E040", "The Check has no condition.", "Write Check(Q(amount__gte=0), name=…)."
        )
    elif not getattr(condition, "conditional", False):
        yield Problem(
            "E041",
            f"The condition {condition!r} is neither true nor false.",
            "Write a Q(…), a lookup, Exists(…), or an expression with a BooleanField output.",
        )


def _operation_problems(check: Check) -> Iterator[Problem]:
    operation = check.operation
    if operation is None:
        pass
    elif not isinstance(operation, pgtrigger.Operation):
        yield Problem(
            "E046",
            f"operation={operation!r} is no operation.",
            "Write operation=pgtrigger.Insert, Update or Delete, joined with |.",
        )
    elif any(event.name not in _EVENTS for event in _split(operation)):
        yield Problem(
            "E046",
            f"A rule over the columns of a row cannot be kept for {operation}.",
            "Use pgtrigger.Insert, Update and Delete. A rule for updates looks at every update; what changed "
            "can be asked with old__… and new__….",
        )
    elif pgtrigger.Delete in _split(operation) and len(_split(operation)) > 1:
        yield Problem(
            "E047",
            "One Check cannot be for deletes and for other operations: a delete has no new row.",
            "Declare two: one with operation=pgtrigger.Delete.",
        )
    if check.deferred and operation is not None:
        yield Problem(
            "E045",
            "A deferred Check judges the row as it is at the commit, whatever was done to it.",
            "Leave operation= or deferred= out.",
        )


def _enough_problems(check: Check) -> Iterator[Problem]:
    plain = not check.deferred and check.operation is None and not check.annotations
    mentioned = list(referenced_names(check.condition))
    if plain and mentioned and not any(name.startswith(("old__", "new__")) for name in mentioned):
        yield Problem(
            "I001",
            "Django's own CheckConstraint can hold this rule.",
            "It needs no trigger. Keep the Check if you want its error, bulksafe.muted or no scan of the "
            "existing rows when it is added.",
        )


_EVENTS = ("INSERT", "UPDATE", "DELETE")


def _split(operation: pgtrigger.Operation) -> list[Any]:
    # pgtrigger.UpdateOf has no name of its own.
    return [event if hasattr(event, "name") else _Unnamed for event in operation]


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
    if not condition.reads:
        raise Refused(
            "E042",
            "The condition reads no column: it is the same for every row.",
            "Name a column of the model in it.",
        )
    if pgtrigger.Insert in events and OLD in condition.rows():
        raise Refused(
            "E043",
            "The condition reads the old row, and an insert has none.",
            "Leave operation= out (it is a rule for updates then), or write operation=pgtrigger.Update.",
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
            "A deferred Check judges the row as it is at the commit, and the old row is gone by then.",
            "Leave deferred= out.",
        )


# Compute


@problems.register(Compute)
def _compute(compute: Compute, model: type[models.Model]) -> list[Problem]:
    try:
        field = fields.column_field(model, compute.field)
    except Refused as refused:
        return [refused.problem]
    return [*_target_problems(compute, field, model), *_target_hints(compute, field)]


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
    others = [other for other in _computes(model) if other.field == compute.field]
    if len(others) > 1 and others[0] is not compute:
        yield Problem(
            "E052",
            f"“{field.name}” is computed twice, also by “{others[0].name}”.",
            "Remove one of them.",
        )
    if cycle := dependencies(model).cycle(field_name(model, compute.field)):
        yield Problem(
            "E053",
            f"The computed fields depend on each other in a circle: {' → '.join(cycle)}.",
            "Write one of them in terms of columns that are not computed.",
        )


def _computes(model: type[models.Model]) -> list[Compute]:
    return [t for t in getattr(model._meta, "triggers", None) or () if isinstance(t, Compute)]


def _target_hints(compute: Compute, field: fields.Field) -> Iterator[Problem]:
    if field.editable and not field.generated:
        yield Problem(
            "W003",
            f"“{field.name}” is computed, and forms still ask for it.",
            f"Add editable=False to {field.name}.",
        )
    if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
        yield Problem(
            "W004",
            f"“{field.name}” is computed, so that what auto_now writes is overruled.",
            "Remove auto_now and auto_now_add.",
        )


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
    if target and source and target != "text" and source != target:
        given, wanted = value.output_field.get_internal_type(), field.get_internal_type()  # type: ignore[union-attr]
        raise Refused(
            "E055",
            f"The expression gives {given}, and “{field.name}” is {wanted}.",
            f"Wrap it: Cast(…, {wanted}()).",
        )


# Immutable


@problems.register(Immutable)
def _immutable(immutable: Immutable, model: type[models.Model]) -> list[Problem]:
    found = []
    if not immutable.fields:
        found.append(
            Problem("E061", "The Immutable names no field.", 'Write Immutable("number", …).')
        )
    for name in sorted({str(f) for f in immutable.fields if immutable.fields.count(f) > 1}):
        found.append(Problem("E062", f"Immutable names “{name}” twice.", "Name it once."))
    found += _column_problems(model, immutable.fields)
    computed = computes_of(model)
    for name in immutable.fields:
        if isinstance(name, str) and name in computed:
            found.append(
                Problem(
                    "W080",
                    f"“{name}” is immutable and computed: an update of what it is computed from is refused.",
                    "If that is meant, make those columns immutable: the error says more then.",
                )
            )
    return found


def _column_problems(model: type[models.Model], listed: Any) -> Iterator[Problem]:
    for name in listed:
        try:
            fields.column_field(model, name)
        except Refused as refused:
            yield refused.problem


# Transition


@problems.register(Transition)
def _transition(transition: Transition, model: type[models.Model]) -> list[Problem]:
    found = list(_column_problems(model, [transition.field]))
    found += _graph_problems(transition)
    if found:
        return found
    field = fields.column_field(model, transition.field)
    return [*_state_problems(transition, field), *_initial_problems(transition, field)]


def _graph_problems(transition: Transition) -> Iterator[Problem]:
    allowed = transition.allowed
    example = 'Write {"draft": ["paid", "cancelled"], "paid": ["shipped"]}.'
    if not isinstance(allowed, Mapping):
        yield Problem("E071", f"allowed is {allowed!r}, not a dict of states.", example)
        return
    if not allowed:
        yield Problem(
            "E075",
            "allowed is empty: no change would ever be allowed.",
            f'Use Immutable("{transition.field}") if that is meant.',
        )
    for state, followers in allowed.items():
        if isinstance(followers, str) or not hasattr(followers, "__iter__"):
            yield Problem(
                "E074",
                f"The states after {state!r} are {followers!r}, not a list.",
                f"Write {{{state!r}: [{followers!r}]}}.",
            )
    if isinstance(transition.initial, str) or (
        transition.initial is not None and not hasattr(transition.initial, "__iter__")
    ):
        yield Problem(
            "E074",
            f"initial is {transition.initial!r}, not a list.",
            f"Write initial=[{transition.initial!r}].",
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
            listed = ", ".join(repr(choice) for choice in choices)
            yield Problem(
                "E072",
                f"{state!r} is not among the choices of “{field.name}”.",
                did_you_mean(str(state), map(str, choices), f"Its choices are {listed}."),
            )
        else:
            try:
                fields.value(field, state)
            except Refused as refused:
                yield refused.problem


def _initial_problems(transition: Transition, field: fields.Field) -> Iterator[Problem]:
    if transition.initial is None:
        return
    initial = list(transition.initial)
    if not initial:
        yield Problem(
            "E073",
            "initial is empty: no row could be inserted.",
            "List the states that a new row may have, or leave initial= out.",
        )
    elif field.has_default() and not callable(field.default) and field.default not in initial:
        yield Problem(
            "W077",
            f"The default of “{field.name}”, {field.default!r}, is not among the initial states: "
            "a row without a state is refused.",
            "Add it to initial=, or change the default.",
        )
