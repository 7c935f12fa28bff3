"""Statements whose changes the database need not buffer, since receivers need only the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.models.signals import post_init

from bulksafe.writer import lean_delivery
from bulksafe.writer.instance_scopes import InHand, Saving
from bulksafe.writer.scopes import Again, Returned

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Execution, Session

#: Appended to a statement whose changes need not be buffered; ``capture_with_buffer.sql`` looks for
#: it. The session's process and the table are part of it: the database refuses a statement that was
#: copied from a log.
_IN_HAND = "/* bulksafe: in hand {} {} */"
#: The same, if the database is to report that it has left the changes out.
_TO_ANSWER = "/* bulksafe: answer to {} {} */"

#: The SQLSTATEs of a statement that may change rows and not return them: the role or a policy of
#: the table forbids it, or a rule does something else instead.
_RETURNS_NOTHING = frozenset({"42501", "0A000"})


def execute_in_bulk(session: Session, execution: Execution) -> Any:
    """Execute a statement, with ``RETURNING`` or a mark where its changes need not be buffered."""
    returned = session.scopes[-1].returned if session.scopes else None
    sql, params, text = execution.sql, execution.params, execution.text
    if not execution.many and isinstance(sql, str):
        if returned is not None and params is not None and returned.is_of(text):
            return _execute_returning(session, returned, execution)
        if own := _marked(session, sql, params):
            return execution.of(own, params)
    return execution()


def returned_by(session: Session, model: type[Model], operation: str) -> Returned | None:
    """Where the rows of a statement go, if it may return them and receivers need no more."""
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
    """Deliver what the statement of a write has returned.

    Returns:
        whether that is all that there is to deliver.

    Raises:
        Again: more was changed along with it, perhaps of the same rows.
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
        Again: it may be executed, but not with them.
    """
    kind = returned.kind
    mark = _mark(session, _TO_ANSWER, kind.source.model)
    session.is_answered = False
    try:
        result = execution.of(f"{execution.sql} {kind.returning} {mark}", execution.params)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) in _RETURNS_NOTHING:
            kind.may_return = False
            raise Again from error
        raise
    returned.rows = execution.context["cursor"].fetchall()
    return result


def _marked(session: Session, sql: str, params: Any) -> str:
    """The statement, marked for the database not to buffer its changes; empty if it has to."""
    scope = session.scopes[-1] if session.scopes else None
    if not isinstance(scope, InHand) or not (scope.is_spared and scope.is_storing):
        return ""
    if scope.model is None or not scope.is_own(sql, params):
        return ""
    # Django sends the signals of what save() stores, whatever the database answers.
    mark = _IN_HAND if isinstance(scope, Saving) else _TO_ANSWER
    return f"{sql} {_mark(session, mark, scope.model)}"


def _mark(session: Session, mark: str, model: type[Model]) -> str:
    return mark.format(session.connection.connection.info.backend_pid, model._meta.db_table)
