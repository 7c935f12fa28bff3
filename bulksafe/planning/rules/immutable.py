"""Checks the arguments of an ``Immutable``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bulksafe.declarations import Immutable
from bulksafe.declarations.dependencies import field_name
from bulksafe.planning import fields, slips
from bulksafe.planning.problems import Problem, Refused

if TYPE_CHECKING:
    from django.db import models


def immutable_problems(immutable: Immutable, model: type[models.Model]) -> list[Problem]:
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
    return [*found, *column_problems(model, immutable.fields)]


def column_problems(model: type[models.Model], listed: Any) -> Iterator[Problem]:
    for name in listed:
        try:
            fields.column_field(model, name)
        except Refused as refused:
            yield refused.problem
