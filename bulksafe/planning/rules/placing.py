"""Checks the name, the message and the table of a declaration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.db import connections, router
from django.utils.functional import Promise

from bulksafe.declarations import Check, Compute, Immutable, Invariant, Transition
from bulksafe.declarations.modes import MODES
from bulksafe.planning import slips
from bulksafe.planning.problems import Problem, did_you_mean, shown
from bulksafe.rendering import names

if TYPE_CHECKING:
    from django.db import models

#: Problems that mean there is no table for a trigger.
NO_TABLE = ("E006", "E007")


def name_problems(invariant: Invariant, model: type[models.Model]) -> Iterator[Problem]:
    """Check the name and the message."""
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
            f"The name {invariant.name!r} has characters other than letters, digits, “-” and “_”.",
            f'Write name="{names.slug(invariant.name)}".',
        )
    message: object = invariant.message
    if message is not None and not isinstance(message, str | Promise):
        yield Problem(
            "E011",
            f"The message is {shown(message)}, not text.",
            'Write message="…" or message=gettext_lazy("…").',
        )


def mode_problems(invariant: Invariant) -> Iterator[Problem]:
    """Check the mode."""
    mode: object = invariant.mode
    if mode not in MODES:
        listed = " or ".join(f'mode="{known}"' for known in MODES)
        yield Problem(
            "E013", f"mode is {shown(mode)}.", did_you_mean(mode, MODES, f"Write {listed}.")
        )


def _has_derived_name(invariant: Invariant) -> bool:
    """Whether the name was derived from field names, which may be any that Django allows."""
    if isinstance(invariant, Compute):
        return invariant.name == invariant.default_name
    if isinstance(invariant, Transition):
        return invariant.name == f"transition_{invariant.field}"
    if isinstance(invariant, Immutable):
        return invariant.name == invariant.default_name
    return False


def table_problems(model: type[models.Model]) -> Iterator[Problem]:
    """Check that there is a PostgreSQL table for the triggers."""
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
            f"{meta.label} is unmanaged: migrations do not create its table, and it may be a view.",
            "Declare the invariant on the model that owns the table, or set managed = True.",
        )
    elif (alias := router.db_for_write(model)) and connections[alias].vendor != "postgresql":
        yield Problem(
            "E007",
            f"{meta.label} is written to the database “{alias}”, which is not PostgreSQL "
            f"({connections[alias].vendor}).",
            "Route the model to a PostgreSQL database, or keep the rule in Python.",
        )
