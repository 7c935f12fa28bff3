"""Stores values that receivers assigned to rows already written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.dispatch.assigning import assign
from bulksafe.hidden import hidden
from bulksafe.writer.storing import store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.models import Model

    from bulksafe.call_stack import Row
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.session import Session


def store_assigned(
    session: Session,
    rows: Sequence[tuple[Model, set[str], Any]],
    written: Mapping[Row, InlineChange],
) -> list[InlineChange]:
    """Store attributes by a separate UPDATE, which belongs to the previous change.

    Args:
        rows: instances, the names of the attributes, and the keys of the rows.
        written: the changes of these rows.

    Returns:
        the changes that belong to none of these rows.
    """
    with hidden(session.connection):
        store(rows, session.alias)
    rest = []
    for change in session.take():
        first = written.get(change.row)
        if first is None:
            rest.append(change)
        else:
            first.end_with(change)
            _refresh(first)
    return rest


def _refresh(change: InlineChange) -> None:
    """Set the stored values on the instance, as returned by a new query."""
    if change.new_image is None:
        return
    table, instance = change.table, change.instance
    values = table.converted(change.new_image.values)
    pairs = zip(table.attnames, values, strict=True)
    assign(instance, {n: value for n, value in pairs if instance.__dict__.get(n) != value})
