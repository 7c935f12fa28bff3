"""Delivers many rows without change objects, to receivers that need only the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.signals import post_init

from bulksafe import call_stack
from bulksafe.dispatch import arguments, muting
from bulksafe.outbox.events import INSERTED, UPDATED
from bulksafe.writer import delivering
from bulksafe.writer.changes import row_of
from bulksafe.writer.combining import sorted_by_key
from bulksafe.writer.taking import is_any_shared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session
    from bulksafe.writer.taking import Kind


def settle(session: Session, scope: Scope) -> bool:
    """Deliver the waiting changes, if all are of one kind and receivers need only the rows.

    Returns:
        whether they were delivered.
    """
    kind = _kind_due(session, scope)
    if kind is None:
        return False
    rows = session.buffer.take_rows(kind)
    if not rows:
        return True
    if is_any_shared(rows):
        for change in session.buffer.combined([kind.taken(row) for row in rows]):
            scope.prepare(change)
            scope.add(change)
        session.deliver_pending(scope)
        return True
    deliver_rows(session, kind, kind.images(rows), scope)
    return True


def needs_rows_only(session: Session, scope: Scope) -> bool:
    """Whether no write in progress adds information to the rows."""
    is_known = scope.pending or any(one.knows_rows for one in session.scopes)
    return not is_known and not call_stack.depth()


def _kind_due(session: Session, scope: Scope) -> Kind | None:
    session.sync()
    kind = session.buffer.only_kind()
    if kind is None or not fits(session, scope, kind):
        return None
    (waiting,) = session.due.values()
    return None if waiting.taken else kind


def fits(session: Session, scope: Scope, kind: Kind) -> bool:
    """Whether receivers need only the rows of a kind of changes."""
    if not kind.is_lean or not needs_rows_only(session, scope):
        return False
    if kind.operation == UPDATED and scope.given_fields is None:
        # For raw SQL, update_fields is the difference of the images, which a lean row lacks.
        return False
    return not post_init.has_listeners(kind.source.model)


def deliver_rows(
    session: Session, kind: Kind, images: Iterable[tuple[Any, ...]], scope: Scope
) -> None:
    """Call the receivers of a kind of change for each of its rows."""
    table = kind.source.table
    model = table.model
    is_live = delivering.Live(delivering.LATE)
    every = [r for route in kind.routes if not muting.is_muted(r := route.receiver)]
    listed = [receiver for receiver in every if is_live(receiver, model)]
    is_new = kind.operation == INSERTED
    known = arguments.Uncaptured(is_new, None if is_new else scope.given_fields, scope.given_origin)
    same = {one: arguments.of_each_object(one, model, session.alias, known) for one in every}
    if not is_new:
        images = sorted_by_key(images, table.key)
    for values in images if listed else ():
        instance = table.instance(values)
        row = row_of(model, table.key(values))
        if is_live.refresh():
            listed = [receiver for receiver in every if is_live(receiver, model)]
        for receiver in listed:
            named = arguments.of_object(receiver, same[receiver], instance)
            session.call_with(receiver, named, row, observer=scope.observer)
