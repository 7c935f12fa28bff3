"""Driver cursors whose statements carry the waiting commands."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg
from psycopg import ClientCursor
from psycopg.pq import ExecStatus

from bulksafe.joining.commands import (
    begun_commands_of,
    ends_savepoints,
    is_joinable,
    is_parsed,
    note_parsed,
)
from bulksafe.joining.positions import in_statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    _Cursor = psycopg.Cursor[Any]
else:
    # A connection's own cursor class follows in the MRO.
    _Cursor = object

_DONE = {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}


class _Sent(NamedTuple):
    """What a message contains beside the statement.

    Attributes:
        names: of the savepoints of the commands before it.
        before: their text.
    """

    names: list[str]
    before: str


class Joining(_Cursor):
    """A mixin for the driver's cursor classes.

    The statement's own results are all that its user sees. Only client-side binding, with the
    simple query protocol, allows several commands in one message.
    """

    _bulksafe_sent: _Sent | None = None

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Self:
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
        if commands is None or not commands.is_joining:
            super()._execute_send(query, *args, **kwargs)
            return
        listed = commands.take(driver)
        before = b"".join(sql + b";\n" for _, sql in listed)
        message = copy.copy(query)
        message.query = before + query.query
        self._bulksafe_sent = _Sent(
            [name for name, _ in listed], before.decode(driver.info.encoding)
        )
        super()._execute_send(message, *args, **kwargs)
        # For Django's query log: the statement as it was executed.
        self._query = query

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
        try:
            super()._check_results(results)
        except psycopg.Error as error:
            encoding = self._conn.info.encoding
            raise in_statement(error, results[-1], encoding, sent.before) from None


def _binds_in_client(cursor: object) -> bool:
    """Whether the cursor uses the simple query protocol."""
    return isinstance(cursor, ClientCursor)
