"""The way in which a write is made, chosen from what is known of it and of its receivers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bulksafe.object_state import set_rowcount
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
from bulksafe.writer.observing import Observer, Restart
from bulksafe.writer.retrying import Overtaken
from bulksafe.writer.row_queue import InBulk
from bulksafe.writer.scopes import Again, Along, Deleting, InHand, Scope, Turns
from bulksafe.writer.sql_text import writes_once
from bulksafe.writer.staged import Staged
from bulksafe.writer.through import Through
from bulksafe.writer.vocabulary import has_early, is_deletion, is_insert, on_conflict

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.writer.session import Execution, Session

logger = logging.getLogger("bulksafe")


#: How often a write may begin again, since others store rows like its own.
_MOST_ATTEMPTS = 10

_IS_REPEATED = (
    "a receiver looks at other rows of its table after the write: the write is made again, row by "
    "row. Write row_by_row=True, or False if the order makes no difference to it."
)


def perform(
    watch: Session,
    operation: Callable[[], Any],
    scope: Scope,
    models: Sequence[type[Model]] = (),
    *,
    is_plain: bool = True,
    model: type[Model] | None = None,
    returning: tuple[type[Model], str] | None = None,
) -> Any:
    """Make a write, with the receivers of all that it changes.

    Args:
        operation: what writes; made twice where ``pre_*`` receivers have to see what it does.
        scope: what is known of it.
        models: those whose tables it is about.
        is_plain: whether it does nothing but change rows of their tables.
        model: the one whose rows it changes, if it is a single statement that changes no others.
        returning: the table and the operation, if it is one statement of Django's that changes
            many rows.
    """
    others = [one for one in models if one is not model]
    is_simple = not (watch.is_migrating or watch.is_in_pipeline or has_early(others))
    if is_simple and model is not None and is_collectable(model, watch.connection):
        try:
            return _perform_in_turn(watch, operation, scope, returning)
        except Uncollectable:
            watch.due.clear()
            scope.reset()
    if has_early(models) or (is_simple and is_plain and may_need_turns(models, watch.connection)):
        return _perform_through(watch, operation, scope, is_plain=is_plain)
    return _perform_at_once(watch, operation, scope, returning)


def _perform_at_once(
    watch: Session,
    operation: Callable[[], Any],
    scope: Scope,
    returning: tuple[type[Model], str] | None,
) -> Any:
    try:
        with watch.within(scope):
            if returning is not None:
                scope.returned = watch.returned(*returning)
            return operation()
    except Again:
        watch.due.clear()
    scope.reset()
    with watch.within(scope):
        return operation()


def _perform_through(
    watch: Session, operation: Callable[[], Any], scope: Scope, *, is_plain: bool
) -> Any:
    """Make a write that is executed twice."""
    is_row_by_row = False
    while True:
        through = Through(watch, scope, operation, is_plain=is_plain, is_row_by_row=is_row_by_row)
        try:
            with watch.within(scope):
                return through.run()
        except Restart as restart:
            if restart.progress is not scope.progress:
                raise
        logger.warning(_IS_REPEATED)
        watch.due.clear()
        scope.reset()
        is_row_by_row = True


def _perform_in_turn(
    watch: Session,
    operation: Callable[[], Any],
    scope: Scope,
    returning: tuple[type[Model], str] | None,
) -> Any:
    """Make a write of one statement, which is collected where its receivers want that."""
    turns: Turns = "found out"
    left = _MOST_ATTEMPTS
    while True:
        scope.turns = turns
        try:
            return _perform_at_once(watch, operation, scope, returning)
        except Restart as restart:
            if restart.progress is not scope.progress:
                raise
            turns = "row by row"
            logger.warning(_IS_REPEATED)
        except Overtaken as overtaken:
            left -= 1
            if not left:
                raise overtaken.error from None
        watch.due.clear()
        scope.reset()


def write(watch: Session, execution: Execution, named: Sequence[type[Model]]) -> Any:
    """Execute a statement that writes to tables with receivers.

    Args:
        named: the models of these tables.
    """
    scope = watch.scopes[-1] if watch.scopes else None
    if isinstance(scope, InHand):
        if scope.returned is not None and scope.returned.is_of(execution.text):
            return watch.execute_in_bulk(execution)
        left = [model for model in named if not scope.covers(model, execution.text)]
        if len(left) < len(named):
            return _write_in_hand(watch, scope, execution, left)
    elif scope is not None:
        return execute_in_turn(watch, scope, execution)
    return _write_alone(watch, scope, execution, named)


def _write_in_hand(
    watch: Session, scope: InHand, execution: Execution, left: Sequence[type[Model]]
) -> Any:
    """A statement with which Django stores instances in hand.

    Args:
        left: the models whose rows it may change along with theirs.
    """
    # An INSERT changes no row that is there. What others are called for afterwards, the database
    # says.
    if is_insert(execution.text) or not has_early(left):
        result = watch.execute_in_bulk(execution)
        scope.stored += max(execution.cursor.rowcount, 0)
        return result
    return perform(watch, execution, Along(outer=scope), left, is_plain=writes_once(execution.text))


def _write_alone(
    watch: Session, outer: Scope | None, execution: Execution, named: Sequence[type[Model]]
) -> Any:
    """A statement that is a write by itself."""
    text = execution.text
    origin = None if outer is None else outer.given_origin
    scope = Scope(given_origin=origin, on_conflict=on_conflict(text))
    is_simple = not (watch.is_in_pipeline or watch.is_migrating)
    target = target_of(text, watch.connection) if is_simple else None
    is_plain = writes_once(text)
    if isinstance(outer, Deleting) and is_deletion(text):
        # Rows of a delete() have the order that Django gives them.
        target, is_plain = None, False
    if target is not None and execution.many:
        if needs_turns(target, watch.connection, text):
            return _execute_each(watch, target, execution)
        target = None
    model = None if target is None else target.model
    run = partial(execute_in_turn, watch, scope, execution)
    return perform(watch, run, scope, named, is_plain=is_plain, model=model)


def execute_in_turn(watch: Session, scope: Scope, execution: Execution) -> Any:
    """Execute the one statement of a write, in turns where its receivers want that.

    Raises:
        Uncollectable: they do, and it cannot be collected.
    """
    turns, scope.turns = scope.turns, ""
    if not turns:
        return watch.execute_in_bulk(execution)
    target = target_of(execution.text, watch.connection)
    if target is None:
        raise Uncollectable
    if turns == "row by row" or needs_turns(target, watch.connection, execution.text):
        staged = Staged(
            watch,
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
        conflicts = Conflicts(watch.connection, target.model, target.operation, late)
        scope.observer = Observer(conflicts, progress, watch.connection, is_after=True)
    return watch.execute_in_bulk(execution)


def _execute_each(watch: Session, target: Target, execution: Execution) -> None:
    """``executemany()``, whose statements are writes one after the other."""
    count, cursor = 0, execution.context["cursor"]
    with watch.within(Scope()):
        for params in execution.params:
            # Through the wrappers again: this one would take parameters for lists of them.
            run = partial(cursor.execute, execution.sql, params)
            perform(watch, run, Scope(), [target.model], model=target.model)
            count += max(cursor.rowcount, 0)
    set_rowcount(execution.cursor, count)
