"""Executes statements whose changes need no buffering, since receivers need only the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.models.signals import post_init

from bulksafe.sqlstates import sqlstate
from bulksafe.writer import lean_delivery
from bulksafe.writer.instance_scopes import InHand, Saving
from bulksafe.writer.scopes import Again, Returned
from bulksafe.writer.taking_along import execute_and_take, kind_of

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Execution, Session

#: Appended to a statement whose changes need not be buffered; ``capture_with_buffer.sql`` looks for
#: it. The session's process and the table are part of it: the database ignores the mark in a
#: statement copied from a log.
_IN_HAND = "/* bulksafe: in hand {} {} */"
#: The same, if the database must report that it left the changes out.
_TO_ANSWER = "/* bulksafe: answer to {} {} */"
#: The same for a statement that returns its rows, which the database refuses for many.
_TO_RETURN = "/* bulksafe: return to {} {} */"
_TOO_MANY = "BS005"

#: The SQLSTATEs of a statement that may change rows but not return them: the role or a policy
#: forbids it, or a rule rewrites it.
_RETURNS_NOTHING = frozenset({"42501", "0A000"})


def execute_in_bulk(session: Session, execution: Execution) -> Any:
    """Execute a statement, with ``RETURNING`` or a mark if its changes need no buffering."""
    returned = session.scopes[-1].returned if session.scopes else None
    sql, params, text = execution.sql, execution.params, execution.text
    if not execution.many and isinstance(sql, str):
        if returned is not None and params is not None and returned.is_of(text):
            return _execute_returning(session, returned, execution)
        if own := _marked(session, sql, params):
            return execution.with_text(own)
        if (kind := kind_of(session, text, execution.cursor)) is not None:
            return execute_and_take(session, execution.cursor, text, execution, kind)
    return execution()


def returned_by(session: Session, model: type[Model], operation: str) -> Returned | None:
    """The target for a statement's returned rows, if receivers need only these."""
    if (
        session.due
        or not lean_delivery.needs_rows_only(session, session.scopes[-1])
        or session.is_in_pipeline
    ):
        return None
    source = session.buffer.source_of(model)
    kind = None if source is None else source.kind(operation)
    if kind is None or not kind.may_return or post_init.has_listeners(model):
        return None
    return Returned(kind)


def settle(session: Session, scope: Scope) -> bool:
    """Deliver the rows that a write's statement returned.

    Returns:
        whether nothing else is to be delivered.

    Raises:
        Again: it also changed other rows, perhaps the same rows twice.
    """
    returned, scope.returned = scope.returned, None
    if returned is None or returned.rows is None:
        return False
    if not session.is_answered:
        # Muted, or buffered nevertheless: the rows of partitions are, and all behind PgBouncer.
        returned.kind.may_return = not session.due
        return False
    if session.due:
        returned.kind.may_return = False
        raise Again
    lean_delivery.deliver_rows(session, returned.kind, returned.rows, scope)
    return True


def _execute_returning(session: Session, returned: Returned, execution: Execution) -> Any:
    """Execute a statement for its rows.

    Raises:
        Again: it may be executed, but not return rows, or not so many.
    """
    kind = returned.kind
    mark = _mark(session, _TO_RETURN, kind.source.model)
    session.is_answered = False
    try:
        result = execution.with_text(f"{kind.returning} {mark}")
    except DatabaseError as error:
        if sqlstate(error) in _RETURNS_NOTHING:
            kind.may_return = False
            raise Again from error
        if sqlstate(error) == _TOO_MANY:
            raise Again from error
        raise
    if execution.cursor.description is not None:
        # None if a user's execute wrapper has replaced the statement: the changes are buffered.
        returned.rows = execution.context["cursor"].fetchall()
    return result


def _marked(session: Session, sql: str, params: Any) -> str:
    """The mark against buffering; empty if the changes must be buffered."""
    scope = session.scopes[-1] if session.scopes else None
    if not isinstance(scope, InHand) or not (scope.is_spared and scope.is_storing):
        return ""
    if scope.model is None or not scope.is_own(sql, params):
        return ""
    # Django sends the signals of save() regardless of the database's answer.
    mark = _IN_HAND if isinstance(scope, Saving) else _TO_ANSWER
    return _mark(session, mark, scope.model)


def in_hand_mark(session: Session, model: type[Model]) -> str:
    """The mark of a statement whose changes no receiver waits for."""
    return _mark(session, _IN_HAND, model)


def _mark(session: Session, mark: str, model: type[Model]) -> str:
    return mark.format(session.connection.connection.info.backend_pid, model._meta.db_table)
