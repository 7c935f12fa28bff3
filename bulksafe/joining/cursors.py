"""Driver cursors whose statements carry the waiting commands."""

from __future__ import annotations

import copy
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg
from psycopg import ClientCursor
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus

from bulksafe.joining.commands import begun_commands_of
from bulksafe.joining.positions import in_statement
from bulksafe.joining.texts import ends_savepoints, is_joinable, is_parsed, note_parsed
from bulksafe.object_state import set_query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.pq.abc import PGresult

    _Cursor = psycopg.Cursor[Any]
else:
    # A connection's own cursor class follows in the MRO.
    _Cursor = object

#: Lists what the messages contain beside the statement, which Django does not log.
logger = logging.getLogger("bulksafe.sql")

_DONE = {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}


class Tail(NamedTuple):
    """What follows a statement, and its user does not see.

    Attributes:
        statement: the statement's text. A user's execute wrapper may add comments to it, and may
            execute others before it.
        text: is appended to the statement.
        query: a query after it; empty for none.
    """

    statement: str
    text: str = ""
    query: str = ""


class _Sent(NamedTuple):
    """What the message of a statement contains beside it.

    Attributes:
        names: of the savepoints of the commands before it.
        before: the text of these commands.
        following: the query that follows.
    """

    names: list[str]
    before: str
    following: Following | None


class Joining(_Cursor):
    """A mixin for the driver's cursor classes.

    The statement's own results are all that its user sees. Only client-side binding, with the
    simple query protocol, allows several commands in one message.
    """

    #: Set by ``following()``.
    _bulksafe_following: Following | None = None
    _bulksafe_sent: _Sent | None = None

    def _bulksafe_follow(self, following: Following | None) -> None:
        self._bulksafe_following = following

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Self:
        follows = self._bulksafe_following
        if follows is not None and not follows.is_of(query):
            self._bulksafe_following = None
            try:
                return self.execute(query, *args, **kwargs)
            finally:
                self._bulksafe_following = follows
        driver: Any = self._conn
        commands = begun_commands_of(driver)
        if commands is None or commands.are_idle:
            return super().execute(query, *args, **kwargs)
        if ends_savepoints(query):
            commands.clear()
        is_single = is_joinable(query) and not driver._pipeline and _binds_in_client(self)
        needs_parsed = is_single and commands.needs_parsed
        if is_single and commands.has_work(driver) and (not needs_parsed or is_parsed(query)):
            with commands.joining():
                return super().execute(query, *args, **kwargs)
        super().execute(query, *args, **kwargs)
        if is_single and commands.is_in_write:
            note_parsed(query)
        return self

    def _execute_send(self, query: Any, *args: Any, **kwargs: Any) -> None:
        driver: Any = self._conn
        commands = begun_commands_of(driver)
        is_joining = commands is not None and commands.is_joining
        follows, self._bulksafe_following = self._bulksafe_following, None
        if follows is None and not is_joining:
            super()._execute_send(query, *args, **kwargs)
            return
        encoding = driver.info.encoding
        listed = commands.take(driver) if commands is not None and is_joining else []
        before = b"".join(sql + b";\n" for _, sql in listed)
        after = b""
        if follows is not None:
            after = follows.tail.text.encode(encoding)
            if follows.tail.query:
                # On a line of its own: the statement may end with a comment.
                after += b"\n;\n" + follows.tail.query.encode(encoding)
            else:
                follows = None
        message = copy.copy(query)
        message.query = before + query.query + after
        names = [name for name, _ in listed]
        self._bulksafe_sent = _Sent(names, before.decode(encoding), follows)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s … %s", before.decode(encoding), after.decode(encoding))
        super()._execute_send(message, *args, **kwargs)
        # For Django's query log: the statement as it was executed.
        set_query(self, query)

    def _check_results(self, results: list[PGresult]) -> None:
        sent, self._bulksafe_sent = self._bulksafe_sent, None
        if sent is None:
            super()._check_results(results)
            return
        number = len(sent.names)
        done = sum(result.status in _DONE for result in results[:number])
        if done < number:
            commands = begun_commands_of(self._conn)
            assert commands is not None  # noqa: S101
            commands.lose(sent.names[done:])
        del results[:done]
        if sent.following is not None:
            *statement, last = results
            sent.following.has_failed = (
                bool(statement) and last.status not in _DONE and done == number
            )
        try:
            super()._check_results(results)
        except psycopg.Error as error:
            encoding = self._conn.info.encoding
            raise in_statement(error, results[-1], encoding, sent.before) from None
        if sent.following is not None:
            sent.following.result = results.pop()


class Following:
    """The query that follows a statement.

    Attributes:
        has_failed: whether it has failed, and not the statement.
    """

    def __init__(self, cursor: Any, tail: Tail) -> None:
        self.tail = tail
        self.has_failed = False
        self.result: PGresult | None = None
        self._driver = cursor._conn

    def is_of(self, query: object) -> bool:
        """Whether it follows this statement."""
        return isinstance(query, str) and self.tail.statement in query

    def rows(self) -> list[tuple[Any, ...]]:
        """Its rows."""
        if self.result is None:
            return []
        loading = Transformer(self._driver)
        loading.set_pgresult(self.result)
        return loading.load_rows(0, self.result.ntuples, tuple)


@contextmanager
def following(cursor: Any, tail: Tail) -> Iterator[Following]:
    """Send something after a statement of a cursor, in the same message.

    Args:
        cursor: one that ``allows_tail()``.
    """
    found = Following(cursor, tail)
    cursor._bulksafe_follow(found)
    try:
        yield found
    finally:
        cursor._bulksafe_follow(None)


def allows_tail(cursor: object) -> bool:
    """Whether something may follow the statements of a driver cursor, and be hidden."""
    return isinstance(cursor, Joining) and _binds_in_client(cursor) and not cursor._conn._pipeline


def _binds_in_client(cursor: object) -> bool:
    """Whether the cursor uses the simple query protocol."""
    return isinstance(cursor, ClientCursor)
