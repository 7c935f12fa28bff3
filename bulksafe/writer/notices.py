"""Receives the database's notices about changes of a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, ref

from bulksafe.writer.waiting import Key, Waiting

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.errors import Diagnostic


#: The SQLSTATEs of two notices: changes wait in the buffer, and changes were left out of it.
_WAITING, _LEFT = "BS001", "BS002"


class Listener(Protocol):
    """An object that handles notices."""

    is_answered: bool

    @property
    def due(self) -> dict[Key, Waiting]: ...


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
            key = int(oid), operation
            before = holder.due.get(key) or Waiting(str(diagnostic.schema_name))
            holder.due[key] = before.announced(int(rows))
        elif diagnostic.sqlstate == _LEFT:
            holder.is_answered = True

    driver.add_notice_handler(handle_notice)
