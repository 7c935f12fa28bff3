"""The execute wrapper that runs the receivers of each statement of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from psycopg.pq import TransactionStatus

from bulksafe.exceptions import ReceiversNotRun
from bulksafe.sqlstates import sqlstate
from bulksafe.statements import text_of
from bulksafe.writer.collecting import forget
from bulksafe.writer.performing import perform, write
from bulksafe.writer.scopes import Scope
from bulksafe.writer.session import Execution
from bulksafe.writer.switched import decided, is_listed, is_off
from bulksafe.writer.vocabulary import (
    ENDS_PART,
    commits,
    is_write,
    known_vocabulary_of,
    vocabulary,
    vocabulary_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models import Model
    from psycopg.abc import Query

    from bulksafe.writer.connection_session import ConnectionSession

#: The SQLSTATEs of statements that cannot be repeated in a transaction: a procedure that commits,
#: and a held cursor, whose query runs at the commit.
_ONCE = frozenset({"2D000", "42P03"})


class Watch:
    """Execute wrapper that delivers every captured change to its receivers.

    Args:
        session: the connection's.
    """

    def __init__(self, session: ConnectionSession) -> None:
        self.session = session
        self._transaction = session.transaction
        self._connection = session.connection

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        text = sql if type(sql) is str else text_of(sql, self._connection)
        for observer in self.session.observers:
            observer.look(text, params)
        if not vocabulary().models:
            return execute(sql, params, many, context)
        execution = Execution(execute, sql, params, many, context, text)
        named = self._named(text)
        if named and any(map(is_listed, named)):
            with decided(named, self.session.alias):
                captured = [one for one in named if not is_off(self._connection, one)]
                if captured:
                    return write(self.session, execution, captured)
                return self._run_in_transaction(execution, text)
        if named:
            return write(self.session, execution, named)
        if self._transaction.is_open:
            return self._run_in_transaction(execution, text)
        return self._run_alone(execution, text, many=many)

    def run(self, run: Callable[[], Any]) -> Any:
        """Run a statement that Django does not pass to execute wrappers, such as ``callproc()``."""
        for observer in self.session.observers:
            observer.look_at_unknown()
        if not vocabulary().models:
            return run()
        if self._transaction.is_open:
            return self._run_in_transaction(run, "")
        return self._run_alone(run, "", many=False)

    def look_past_django(self, statement: Query) -> None:
        """Notify observers of a statement that a receiver executes on a driver cursor."""
        if self.session.observers:
            text = text_of(statement, self._connection)
            for observer in self.session.observers:
                observer.look(text, None)

    def settle_due(self) -> None:
        """Run the receivers of unexpected changes, if their transaction is open."""
        if self.session.due and self._transaction.status != TransactionStatus.IDLE:
            self._deliver_unexpected()

    def _named(self, text: str) -> Sequence[type[Model]]:
        """The models whose tables a statement writes to, by its text."""
        if not is_write(text):
            return ()
        found = known_vocabulary_of(self.session.alias)
        if found is None:
            if self._transaction.is_broken:
                return ()
            found = vocabulary_of(self._connection)
        named = found.named(text)
        return () if named and self._transaction.is_broken else named

    def _run_alone(self, run: Callable[[], Any], text: str, *, many: bool) -> Any:
        """Run a statement in autocommit that names no table with receivers."""
        if many:
            # psycopg loses count if the end of a pipeline fails, so no refusal is raised.
            return perform(self.session, run, Scope(), vocabulary().models, is_plain=False)
        try:
            return run()
        except ReceiversNotRun as refusal:
            # A function or a trigger has written to a table that the statement does not name. The
            # server has rolled the statement back: repeat it, with the receivers.
            self.session.due.clear()
            forget(self.session.alias)
            if commits(text):
                raise
            return self._repeat(run, refusal)

    def _repeat(self, run: Callable[[], Any], refusal: ReceiversNotRun) -> Any:
        try:
            return perform(self.session, run, Scope(), vocabulary().models)
        except DatabaseError as error:
            if sqlstate(error) in _ONCE:
                self.session.due.clear()
                raise refusal from error
            raise

    def _run_in_transaction(self, run: Callable[[], Any], text: str) -> Any:
        if self.session.due and ENDS_PART.match(text):
            # Delivered inside a savepoint, the receivers' work would be rolled back with it though
            # the change was written before. After a commit it would be too late.
            self._deliver_unexpected()
        result = run()
        self.settle_due()
        return result

    def _deliver_unexpected(self) -> None:
        """Deliver the changes of a statement that was not expected to make any.

        The statement alone cannot be rolled back. If a receiver raises, the changes wait in the
        buffer again: a caller that catches the error cannot commit them.
        """
        if self.session.scopes:
            return
        forget(self.session.alias)
        with self.session.within(Scope()):
            """The changes are delivered at its end."""
