"""A ``Compute`` as a condition to look for, and as a value to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import F

from bulksafe import inspection
from bulksafe.adoption.errors import Unusable
from bulksafe.adoption.looking import probe
from bulksafe.adoption.repairing import SQL
from bulksafe.adoption.rules import Rule, rule_of
from bulksafe.declarations import Compute
from bulksafe.declarations.compute import dependencies
from bulksafe.declarations.modes import NEW, OBSERVE
from bulksafe.planning import fields
from bulksafe.planning.expressions import compile_expression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bulksafe.adoption.tables import Table
    from bulksafe.declarations import Declared


def _compute_of(item: Declared) -> Compute:
    if not isinstance(item.invariant, Compute):
        raise TypeError(f"{item.label} is not a Compute")
    return item.invariant


def depth(item: Declared) -> int:
    """A column comes after those that it is computed from."""
    name = fields.column_field(item.model, _compute_of(item).field).name
    return len(dependencies(item.model).longest_chain(name))


def condition(item: Declared, table: Table) -> str:
    """The condition that the column is wrong."""
    rule = rule_of(item, table)
    if not isinstance(rule, Rule):
        raise TypeError(f"{item.label} has no rule for stored rows")
    probe(table, rule.violated)
    return rule.violated


def value(item: Declared) -> Mapping[str, Any]:
    """The right value of the column, to assign to its field."""
    compute = _compute_of(item)
    target = fields.column_field(item.model, compute.field)
    value = compile_expression(item.model, compute.expression, bare=True)
    return {target.name: SQL(value.sql, target)}


def steps(items: Sequence[Declared], *, with_triggers: bool) -> list[Mapping[str, Any]]:
    """What to assign, with an UPDATE for each step, so that all of the columns are right.

    Args:
        items: in the order in which the columns are computed from each other.
        with_triggers: whether the triggers of the columns are installed.
    """
    if not with_triggers or observed(items):
        return [value(item) for item in items]
    # The triggers set all columns of the row, whatever is assigned. That of mode="new" does so only
    # if the row changes.
    assigned: dict[str, Any] = {}
    for item in items:
        values = value(item)
        is_new = _compute_of(item).mode == NEW
        assigned |= values if is_new else {name: F(name) for name in values}
    return [assigned]


def observed(items: Sequence[Declared]) -> list[str]:
    """The labels of the columns that no trigger sets."""
    return [item.label for item in items if _compute_of(item).mode == OBSERVE]


def refuse_unguarded(items: Sequence[Declared], using: str) -> None:
    """Refuse columns that the next write would leave wrong again."""
    labels = {item.label for item in items}
    tables = {item.model._meta.db_table for item in items}
    for status in inspection.statuses(using, tables):
        if status.label in labels and status.state != inspection.INSTALLED:
            raise Unusable(
                f"The trigger of {status.label} is {status.state} in the database “{using}”: "
                "nothing would keep the values. Run makemigrations and migrate, or enable the "
                "trigger. To write the values now nevertheless, give --without-triggers."
            )
