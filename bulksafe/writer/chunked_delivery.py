"""Delivers the changes of a large statement in chunks, so that memory does not grow with them."""

from __future__ import annotations

from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from django.db.models.signals import m2m_changed

from bulksafe.writer import lean_delivery
from bulksafe.writer.buffer import MANY
from bulksafe.writer.taking import is_any_shared

if TYPE_CHECKING:
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session
    from bulksafe.writer.taking import Kind


def settle(session: Session, scope: Scope) -> bool:
    """Deliver the waiting changes, if they are many of one statement.

    Returns:
        whether they were delivered.
    """
    kind = _large_kind_due(session, scope)
    if kind is None:
        return False
    is_lean = lean_delivery.fits(session, scope, kind)
    with closing(session.buffer.chunks(kind, is_lean=is_lean)) as chunks:
        for rows in chunks:
            if is_any_shared(rows, is_lean=is_lean):
                # Changes that belong together may be far apart.
                every = sorted([*rows, *chain.from_iterable(chunks)])
                _deliver(session, scope, kind, every)
            elif is_lean:
                lean_delivery.deliver_rows(session, kind, kind.images(rows), scope)
            else:
                _deliver(session, scope, kind, rows)
    return True


def _deliver(session: Session, scope: Scope, kind: Kind, rows: list[tuple[object, ...]]) -> None:
    changes = session.buffer.combined([kind.taken(row) for row in rows])
    for change in changes:
        scope.prepare(change)
        scope.add(change)
    session.deliver_pending(scope)


def _large_kind_due(session: Session, scope: Scope) -> Kind | None:
    session.sync()
    if scope.pending or any(one.knows_rows for one in session.scopes):
        return None
    kind = session.buffer.only_kind()
    if kind is None or kind.is_wide:
        return None
    (waiting,) = session.due.values()
    if waiting.notices > 1 or waiting.rows <= MANY:
        return None
    # The links of one instance are announced in one call.
    is_of_links = any(route.receiver.signal is m2m_changed for route in kind.routes)
    return None if is_of_links else kind
