"""Chooses how a write is executed: at once, row by row, staged, or twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bulksafe.object_state import forget_logged, log_mark, set_rowcount
from bulksafe.writer.collecting import (
    Target,
    Uncollectable,
    is_collectable,
    live,
    may_need_turns,
    needs_turns,
    target_of,
)
from bulksafe.writer.conflicts import Conflicts
from bulksafe.writer.instance_scopes import Along, Deleting, InHand
from bulksafe.writer.observing import Observer, Restart
from bulksafe.writer.retrying import Overtaken
from bulksafe.writer.row_queue import InBulk
from bulksafe.writer.scopes import Again, Scope, Turns
from bulksafe.writer.sql_text import writes_once
from bulksafe.writer.staged import Staged
from bulksafe.writer.through import Through
from bulksafe.writer.unbuffered import execute_in_bulk, returned_by
from bulksafe.writer.vocabulary import has_early, is_deletion, is_insert, on_conflict

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.writer.session import Execution, Session

logger = logging.getLogger("bulksafe")


#: The maximum number of restarts because other transactions store the same new rows.
_MOST_ATTEMPTS = 10

_IS_REPEATED = (
    "a receiver reads other rows of its table after the write: the write is repeated row by "
    "row. Write row_by_row=True, or False if the order makes no difference to it."
)


def perform(
    session: Session,
    operation: Callable[[], Any],
    scope: Scope,
    models: Sequence[type[Model]] = (),
    *,
    is_plain: bool = True,
    model: type[Model] | None = None,
    returning: tuple[type[Model], str] | None = None,
) -> Any:
    """Execute a write, and run the receivers of all rows that it changes.

    Args:
        operation: executes it; called twice if ``pre_*`` receivers must see its changes first.
        scope: the scope of the write.
        models: the models whose tables it names.
        is_plain: whether it only changes rows of their tables.
        model: the model whose rows it changes, if it is a single statement that changes no others.
        returning: the table and the operation, if it is one statement of Django's that changes
            many rows.
    """
    mark = log_mark(session.connection)
    others = models if model is None else [one for one in models if one is not model]
    is_simple = not (session.is_migrating or session.is_in_pipeline or has_early(others))
    if is_simple and model is not None and is_collectable(model, session.connection):
        try:
            return _perform_in_turn(session, operation, scope, returning)
        except Uncollectable:
            _begin_again(session, scope, mark)
    if has_early(models) or (is_simple and is_plain and may_need_turns(models, session.connection)):
        return _perform_through(session, operation, scope, is_plain=is_plain)
    return _perform_at_once(session, operation, scope, returning)


def _perform_at_once(
    session: Session,
    operation: Callable[[], Any],
    scope: Scope,
    returning: tuple[type[Model], str] | None,
) -> Any:
    turns = scope.turns
    mark = log_mark(session.connection)
    try:
        with session.within(scope):
            if returning is not None:
                scope.returned = returned_by(session, *returning)
            return operation()
    except Again:
        _begin_again(session, scope, mark)
    scope.turns = turns
    with session.within(scope):
        return operation()


def _perform_through(
    session: Session, operation: Callable[[], Any], scope: Scope, *, is_plain: bool
) -> Any:
    """Execute a write twice."""
    is_row_by_row = False
    mark = log_mark(session.connection)
    while True:
        through = Through(session, scope, operation, is_plain=is_plain, is_row_by_row=is_row_by_row)
        try:
            with session.within(scope):
                return through.run()
        except Restart as restart:
            if restart.progress is not scope.progress:
                raise
        logger.warning(_IS_REPEATED)
        _begin_again(session, scope, mark)
        is_row_by_row = True


def _perform_in_turn(
    session: Session,
    operation: Callable[[], Any],
    scope: Scope,
    returning: tuple[type[Model], str] | None,
) -> Any:
    """Execute a write of one statement, collected if its receivers need that."""
    turns: Turns = "found out"
    left = _MOST_ATTEMPTS
    mark = log_mark(session.connection)
    while True:
        scope.turns = turns
        try:
            return _perform_at_once(session, operation, scope, returning)
        except Restart as restart:
            if restart.progress is not scope.progress:
                raise
            turns = "row by row"
            logger.warning(_IS_REPEATED)
        except Overtaken as overtaken:
            left -= 1
            if not left:
                raise overtaken.error from None
        _begin_again(session, scope, mark)


def _begin_again(session: Session, scope: Scope, mark: int) -> None:
    """Forget a write that has been rolled back to be executed in another way."""
    session.due.clear()
    scope.reset()
    forget_logged(session.connection, mark)


def write(session: Session, execution: Execution, named: Sequence[type[Model]]) -> Any:
    """Execute a statement that writes to tables with receivers.

    Args:
        named: the models of these tables.
    """
    scope = session.scopes[-1] if session.scopes else None
    if isinstance(scope, InHand):
        if scope.returned is not None and scope.returned.is_of(execution.text):
            return execute_in_bulk(session, execution)
        left = [model for model in named if not scope.covers(model, execution.text)]
        if len(left) < len(named):
            return _write_in_hand(session, scope, execution, left)
    elif scope is not None:
        return execute_in_turn(session, scope, execution)
    return _write_alone(session, scope, execution, named)


def _write_in_hand(
    session: Session, scope: InHand, execution: Execution, left: Sequence[type[Model]]
) -> Any:
    """Execute a statement with which Django stores instances in hand.

    Args:
        left: other models whose rows it may also change.
    """
    # An INSERT changes no stored row. Changes for receivers of other models are reported by the
    # database afterwards.
    if is_insert(execution.text) or not has_early(left):
        result = execute_in_bulk(session, execution)
        scope.stored += max(execution.cursor.rowcount, 0)
        return result
    return perform(
        session, execution, Along(outer=scope), left, is_plain=writes_once(execution.text)
    )


def _write_alone(
    session: Session, outer: Scope | None, execution: Execution, named: Sequence[type[Model]]
) -> Any:
    """Execute a statement that is a write by itself."""
    text = execution.text
    origin = None if outer is None else outer.given_origin
    scope = Scope(given_origin=origin, on_conflict=on_conflict(text))
    is_simple = not (session.is_in_pipeline or session.is_migrating)
    target = target_of(text, session.connection) if is_simple else None
    is_plain = writes_once(text)
    if isinstance(outer, Deleting) and is_deletion(text):
        # Rows of a delete() keep Django's order.
        target, is_plain = None, False
    if target is not None and execution.many:
        if needs_turns(target, session.connection, text):
            return _execute_each(session, target, execution)
        target = None
    model = None if target is None else target.model
    run = partial(execute_in_turn, session, scope, execution)
    return perform(session, run, scope, named, is_plain=is_plain, model=model)


def execute_in_turn(session: Session, scope: Scope, execution: Execution) -> Any:
    """Execute the only statement of a write, collected if its receivers need that.

    Raises:
        Uncollectable: they do, and it cannot be collected.
    """
    turns, scope.turns = scope.turns, ""
    if not turns:
        return execute_in_bulk(session, execution)
    target = target_of(execution.text, session.connection)
    if target is None:
        raise Uncollectable
    if turns == "row by row" or needs_turns(target, session.connection, execution.text):
        staged = Staged(
            session,
            scope,
            target,
            execution.of,
            execution.cursor,
            is_row_by_row=turns == "row by row",
        )
        scope.progress = staged.queue
        return staged.run(execution.sql, execution.params)
    scope.progress = progress = InBulk()
    _, late = live(target)
    if late:
        conflicts = Conflicts(session.connection, target.model, target.operation, late)
        scope.observer = Observer(conflicts, progress, session.connection, is_after=True)
    return execute_in_bulk(session, execution)


def _execute_each(session: Session, target: Target, execution: Execution) -> None:
    """``executemany()``: each of its statements is a separate write."""
    count, cursor = 0, execution.context["cursor"]
    with session.within(Scope()):
        for params in execution.params:
            # Through the wrappers again: this execution expects a list of parameters.
            run = partial(cursor.execute, execution.sql, params)
            perform(session, run, Scope(), [target.model], model=target.model)
            count += max(cursor.rowcount, 0)
    set_rowcount(execution.cursor, count)
