"""A ``Compute`` as a condition to look for, and as a value to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe import inspection
from bulksafe.adoption.errors import Unusable
from bulksafe.adoption.looking import probe
from bulksafe.adoption.repairing import SQL
from bulksafe.adoption.rules import Rule, rule_of
from bulksafe.declarations import Compute
from bulksafe.declarations.compute import dependencies
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
