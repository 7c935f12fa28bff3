"""The rows that break an invariant, as a query that a user can run in ``manage.py shell``."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from django.db.migrations.serializer import serializer_factory

from bulksafe.declarations import Check, Compute, Invariant, Transition
from bulksafe.declarations.dependencies import referenced_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.db.models import Model


def query_of(invariant: Invariant, model: type[Model], using: str) -> str | None:
    """Python code; None if the ORM cannot say it: only triggers know ``old__`` and ``new__``."""
    try:
        filters = filters_of(invariant, model)
    except (ValueError, TypeError):
        # The expression has no constructor that Django could write into a migration.
        return None
    if filters is None:
        return None
    code, imports = filters
    lines = sorted({"from django.apps import apps", "from django.db import models", *imports})
    rows = f"models.QuerySet(apps.get_model({model._meta.label!r}), using={using!r})"
    return "\n".join([*lines, f"{rows}{code}"])


@singledispatch
def filters_of(invariant: Invariant, model: type[Model]) -> tuple[str, set[str]] | None:
    """Method calls on a queryset, and the imports that they need."""
    return None


@filters_of.register(Check)
def _check(check: Check, model: type[Model]) -> tuple[str, set[str]] | None:
    expressions = [check.condition, *check.annotations.values()]
    if _mentions_rows(expressions):
        return None
    (condition, *annotations), imports = _written(expressions)
    named = "".join(
        f".alias({name}={text})" for name, text in zip(check.annotations, annotations, strict=True)
    )
    # exclude() would also return rows for which the condition is unknown.
    holds = f"models.ExpressionWrapper({condition}, output_field=models.BooleanField())"
    alias = _free("holds", model, check.annotations)
    return f"{named}.alias({alias}={holds}).filter({alias}=False)", imports


@filters_of.register(Compute)
def _compute(compute: Compute, model: type[Model]) -> tuple[str, set[str]] | None:
    if _mentions_rows([compute.expression]):
        return None
    (expression,), imports = _written([compute.expression])
    # pgtrigger's lookup IS DISTINCT FROM: NULL is a value.
    alias = _free("expected", model)
    wrong = f".filter({compute.field}__df=models.F('{alias}'))"
    return f".alias({alias}={expression}){wrong}", imports


@filters_of.register(Transition)
def _transition(transition: Transition, model: type[Model]) -> tuple[str, set[str]]:
    states = transition.states()
    known = [state for state in states if state is not None]
    (listed,), imports = _written([known])
    wrong = f".exclude({transition.field}__in={listed})"
    return wrong + (f".exclude({transition.field}=None)" if None in states else ""), imports


def _free(name: str, model: type[Model], others: Collection[str] = ()) -> str:
    """``name`` with a prefix, if it is the name of a field: Django refuses such an alias."""
    taken = {*others, *(str(one.name) for one in model._meta.get_fields())}
    taken |= {str(one.attname) for one in model._meta.concrete_fields}
    while name in taken:
        name = f"its_{name}"
    return name


def _mentions_rows(expressions: Iterable[object]) -> bool:
    return any(
        name.startswith(("old__", "new__"))
        for expression in expressions
        for name in referenced_names(expression)
    )


def _written(expressions: Iterable[object]) -> tuple[list[str], set[str]]:
    texts, imports = [], set()
    for expression in expressions:
        text, needed = serializer_factory(expression).serialize()
        texts.append(text)
        imports |= set(needed)
    return texts, imports
