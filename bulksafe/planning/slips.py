"""Detects misplaced arguments of declarations, and suggests the right line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import F, Q, Value
from django.db.models.expressions import CombinedExpression

from bulksafe.planning.problems import Problem
from bulksafe.rendering import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bulksafe.declarations import Check, Compute, Immutable


def code(value: object) -> str:
    """The source text of an argument; ``…`` if it is long."""
    text = "…"
    match value:
        case F():
            text = f'F("{value.name}")'  # type: ignore[attr-defined]
        case Q():
            text = f"Q({_lookups(value)})"
        case CombinedExpression():
            text = f"{code(value.lhs)} {value.connector} {code(value.rhs)}"
        case Value():
            text = code(value.value)
        case str():
            text = f'"{value}"'
        case bool() | int() | float() | None:
            text = repr(value)
    return text


def _lookups(condition: Q) -> str:
    pairs: list[Any] = condition.children
    is_plain = all(isinstance(pair, tuple) for pair in pairs)
    if condition.negated or not is_plain or (len(pairs) > 1 and condition.connector != Q.AND):
        return "…"
    return ", ".join(f"{lookup}={code(given)}" for lookup, given in pairs)


def without_a_name(check: Check) -> str:
    """The corrected line for a Check without a name."""
    condition: object = check.condition
    shown = code(condition)
    suggested = "what_must_hold"
    if isinstance(condition, Q) and condition and shown != "Q(…)":
        pairs: list[Any] = condition.children
        suggested = names.slug("_".join(lookup for lookup, _ in pairs))
    return f'Check({shown}, name="{suggested}")'


def annotations_for_a_condition(check: Check) -> Iterator[Problem]:
    """Detect ``Check(amount__gt=0, name=…)``: keyword arguments are annotations."""
    given = ", ".join(f"{name}={code(value)}" for name, value in check.annotations.items())
    yield Problem(
        "E040",
        f"The Check has no condition: {given} was given as an annotation, not in a Q().",
        f'Write Check(Q({given}), name="{check.name or "what_must_hold"}").',
    )


def swapped(compute: Compute) -> Problem | None:
    """Detect ``Compute(expression, "net")``: the field comes first."""
    field: object = compute.field
    if not hasattr(field, "resolve_expression") or not isinstance(compute.expression, str):
        return None
    return Problem(
        "E029",
        "The arguments of the Compute are swapped: the field comes before the expression.",
        f'Write Compute("{compute.expression}", {code(field)}).',
    )


def listed(immutable: Immutable) -> Problem | None:
    """Detect ``Immutable(["amount"])``: each field is a separate argument."""
    fields: Iterable[object] = immutable.fields
    for given in fields:
        if isinstance(given, list | tuple | set | frozenset):
            inner = sorted(given) if isinstance(given, set | frozenset) else given
            names = ", ".join(map(code, inner))
            return Problem(
                "E029",
                f"Immutable was given a {type(given).__name__}, which is not a field name.",
                f"Write Immutable({names}).",
            )
    return None
