"""Checks the arguments of a ``Compute``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from bulksafe.caching import models_of
from bulksafe.declarations import Compute, Invariant
from bulksafe.declarations.compute import dependencies
from bulksafe.declarations.dependencies import field_name
from bulksafe.planning import fields, sessions, slips
from bulksafe.planning.expressions import OLD, RowSQL
from bulksafe.planning.problems import Problem, Refused

if TYPE_CHECKING:
    from django.db import models

Declaration = TypeVar("Declaration", bound=Invariant)


def compute_problems(compute: Compute, model: type[models.Model]) -> list[Problem]:
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
            f"“{field.name}” is in the primary key, which other rows and Django use to find the "
            f"row.",
            "Compute a different column.",
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
            f"The computed fields depend on each other in a cycle: {' → '.join(cycle)}.",
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
    """Refuse a value that does not fit the column, or that depends on the old row."""
    if OLD in value.rows():
        raise Refused(
            "E057",
            "The expression reads the old row, so it could not be checked for existing rows.",
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
