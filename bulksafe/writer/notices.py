"""What the database says of a write, beside its result."""

from __future__ import annotations

from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

#: The SQLSTATEs of the database's word that changes wait in the buffer, and that it has left them
#: to the writer.
_WAITING, _LEFT = "BS001", "BS002"


class Listener(Protocol):
    """An object that notes what is said."""

    is_answered: bool

    @property
    def due(self) -> dict[tuple[int, str], str]: ...


#: By connection of the driver's. A strong reference to the listener would keep the connection
#: alive, and so open, after the thread that it belonged to has ended.
_listeners: WeakKeyDictionary[Any, list[ref[Listener]]] = WeakKeyDictionary()


def listen(driver: Any, listener: Listener) -> None:
    """Let a listener know what is said on a connection of the driver's.

    A pool hands the same connection to several of Django's, one after the other.
    """
    if driver in _listeners:
        _listeners[driver][:] = [ref(listener)]
        return
    holders = _listeners[driver] = [ref(listener)]

    def handle_notice(diagnostic: Any) -> None:
        holder = holders[0]()
        if holder is None:
            return
        if diagnostic.sqlstate == _WAITING and diagnostic.constraint_name:
            # In a field that psql does not show.
            oid, _, operation = diagnostic.constraint_name.partition(" ")
            holder.due[int(oid), operation] = diagnostic.schema_name
        elif diagnostic.sqlstate == _LEFT:
            holder.is_answered = True

    driver.add_notice_handler(handle_notice)
