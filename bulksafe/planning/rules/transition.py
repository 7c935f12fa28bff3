"""Checks the arguments of a ``Transition``."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from bulksafe.declarations import Transition
from bulksafe.planning import fields
from bulksafe.planning.problems import Problem, Refused, did_you_mean, shown
from bulksafe.planning.rules.immutable import column_problems

if TYPE_CHECKING:
    from django.db import models


def transition_problems(transition: Transition, model: type[models.Model]) -> list[Problem]:
    found = list(column_problems(model, [transition.field]))
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
            f"Use Immutable({transition.field!r}) if that is intended.",
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
    elif not list(initial):  # type: ignore[call-overload]
        yield Problem(
            "E073",
            "initial is empty: no row could be inserted.",
            "List the states that a new row may have, or leave initial= out.",
        )
    else:
        yield from _unhashable(initial)


def _is_listed(states: object) -> bool:
    return hasattr(states, "__iter__") and not isinstance(states, str | bytes)


def _unhashable(states: Any) -> Iterator[Problem]:
    for state in states:
        if not isinstance(state, Hashable):
            yield Problem(
                "E078",
                f"The state {shown(state)} is a {type(state).__name__}, not a single value.",
                "Write each state separately.",
            )


def _state_problems(transition: Transition, field: fields.Field) -> Iterator[Problem]:
    choices = [value for value, _ in field.flatchoices]
    for state in transition.states():
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


def _unknown_state(state: Any, field: fields.Field, choices: list[Any]) -> Problem:
    listed = f"Its choices are {', '.join(repr(fields.plain(choice)) for choice in choices)}."
    meant = state.value if isinstance(state, Enum) else str(state)
    fix = f"Write {meant!r}." if meant in choices else did_you_mean(meant, choices, listed)
    return Problem("E072", f"{shown(state)} is not among the choices of “{field.name}”.", fix)
