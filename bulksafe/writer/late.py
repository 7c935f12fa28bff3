"""Receivers of ``pre_*`` signals for rows that are written already.

Triggers, functions and driver cursors write rows that bulksafe detects only afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.dispatch.ordering import calls
from bulksafe.writer import delivering
from bulksafe.writer.fingerprints import recognizable
from bulksafe.writer.scopes import Scope
from bulksafe.writer.second_update import store_assigned
from bulksafe.writer.through_rows import recorded_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.session import Session


def receive_late(session: Session, changes: Sequence[InlineChange]) -> None:
    """Call the receivers, and store their assignments by a second UPDATE."""
    due = delivering.deliveries(changes, session.listed, delivering.BEFORE)
    if not due:
        return
    scope = Scope()
    wanted = {id(delivery.change) for delivery in due}
    rows = {
        id(found.change): recorded_row(found, scope.ledger, is_stored=True)
        for found in recognizable(changes)
        if id(found.change) in wanted
    }
    for call in delivering.still_connected(calls(due), delivering.BEFORE):
        for change in call.changes:
            scope.ledger.note(call.receiver, rows[id(change)].instance)
        session.call(call)
    to_store, written = [], {}
    for row in rows.values():
        row.change.done |= scope.ledger.called_for(row.instance)
        assigned = set() if row.change.deleted else row.assigned()
        if assigned:
            to_store.append((row.instance, assigned, row.change.key()))
            written[row.change.new_row] = row.change
    if to_store:
        # It is part of the delivered write, not of an outer one.
        with session.as_scope(scope):
            rest = store_assigned(session, to_store, written)
        if rest:
            session.deliver(rest)
