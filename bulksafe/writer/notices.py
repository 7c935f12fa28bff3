"""Receives the database's notices about changes of a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.errors import Diagnostic


class Due(NamedTuple):
    """Waiting changes of one table by one operation.

    Attributes:
        home: the schema of their buffer.
        notices: how many notices have announced them.
        rows: their number, or less if they were captured one by one.
    """

    home: str
    notices: int
    rows: int


#: The SQLSTATEs of two notices: changes wait in the buffer, and changes were left out of it.
_WAITING, _LEFT = "BS001", "BS002"


class Listener(Protocol):
    """An object that handles notices."""

    is_answered: bool

    @property
    def due(self) -> dict[tuple[int, str], Due]: ...


#: By driver connection. A strong reference to the listener would keep the connection open after its
#: thread has ended.
_listeners: WeakKeyDictionary[Connection[Any], list[ref[Listener]]] = WeakKeyDictionary()


def listen(driver: Connection[Any], listener: Listener) -> None:
    """Pass the notices of a driver connection to a listener.

    A pool hands the same connection to several Django connections in turn.
    """
    if driver in _listeners:
        _listeners[driver][:] = [ref(listener)]
        return
    holders = _listeners[driver] = [ref(listener)]

    def handle_notice(diagnostic: Diagnostic) -> None:
        holder = holders[0]()
        if holder is None:
            return
        if diagnostic.sqlstate == _WAITING and diagnostic.constraint_name:
            # In a field that psql does not show.
            oid, operation, rows = diagnostic.constraint_name.split(" ")
            before = holder.due.get((int(oid), operation), Due("", 0, 0))
            holder.due[int(oid), operation] = Due(
                str(diagnostic.schema_name), before.notices + 1, before.rows + int(rows)
            )
        elif diagnostic.sqlstate == _LEFT:
            holder.is_answered = True

    driver.add_notice_handler(handle_notice)
