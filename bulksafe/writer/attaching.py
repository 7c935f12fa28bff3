"""Attaches a session and an execute wrapper to each Django connection."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import NotSupportedError, connections
from psycopg.pq import TransactionStatus

from bulksafe.contexts import leaving, past_django
from bulksafe.object_state import attributes, in_atomic_block
from bulksafe.writer import connecting
from bulksafe.writer.collecting import forget
from bulksafe.writer.connection_session import ConnectionSession
from bulksafe.writer.django_signals import sent
from bulksafe.writer.notices import listen
from bulksafe.writer.scopes import Scope
from bulksafe.writer.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model
    from psycopg.abc import Query

    from bulksafe.declarations import Receiver
    from bulksafe.writer.connecting import Connected

_WATCH = "_bulksafe_watch"


def watch_of(connection: BaseDatabaseWrapper) -> Watch:
    """The execute wrapper of a connection."""
    found = _begun_watch_of(connection)
    if found is None:
        found = attributes(connection)[_WATCH] = Watch(ConnectionSession(connection))
    return found


def _begun_watch_of(connection: BaseDatabaseWrapper) -> Watch | None:
    # Each write asks several times.
    return connection.__dict__.get(_WATCH)


def session_of(connection: BaseDatabaseWrapper) -> ConnectionSession:
    """The session of a connection."""
    return watch_of(connection).session


def begun_session_of(connection: BaseDatabaseWrapper) -> ConnectionSession | None:
    """The session of a connection, if it exists already."""
    watch = _begun_watch_of(connection)
    return None if watch is None else watch.session


def session_on(using: str) -> ConnectionSession | None:
    """The session of a database, if it can have critical receivers."""
    connection = connections[using]
    return session_of(connection) if connection.vendor == "postgresql" else None


@contextmanager
def migrating(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Mark a connection as migrating."""
    if connection.vendor != "postgresql":
        yield
        return
    session = session_of(connection)
    before, session.is_migrating = session.is_migrating, True
    try:
        yield
        # Discard the changes of the driver's cursors.
        session.take()
    finally:
        session.is_migrating = before
        forget(connection.alias)


def attach(sender: object, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of ``connection_created``: watch the connection."""
    if connection.vendor != "postgresql":
        return
    watch = watch_of(connection)
    if not any(isinstance(wrapper, Watch) for wrapper in connection.execute_wrappers):
        connection.execute_wrappers.insert(0, watch)
    watch.session.begin()
    if connection.connection is not None:
        listen(connection.connection, watch.session)


def before_commit(connection: BaseDatabaseWrapper) -> None:
    """Deliver the changes of the driver's cursors before the transaction is committed.

    Raises:
        Exception: any error of a receiver; the transaction is rolled back then.
    """
    session = begun_session_of(connection)
    if session is None:
        return
    session.sync()
    if not session.due:
        return
    if connection.connection.info.transaction_status != TransactionStatus.INTRANS:
        session.due.clear()
        return
    try:
        with in_atomic_block(connection):
            session.settle(Scope())
    except BaseException:
        connection.rollback()
        raise


def _settle_due() -> None:
    """At the end of a ``context`` block, deliver the changes of driver cursors in it."""
    for connection in connections.all(initialized_only=True):
        watch = _begun_watch_of(connection)
        if watch is not None:
            watch.settle_due()


def _look_past_django(connection: BaseDatabaseWrapper, statement: Query) -> None:
    watch = _begun_watch_of(connection)
    if watch is not None:
        watch.look_past_django(statement)


def not_postgresql(model: type[Model], receiver: Receiver, using: str) -> NotSupportedError:
    """The error in place of a write to a database without triggers.

    Only some writes would run the receiver there, and nothing would refuse the others.
    """
    return NotSupportedError(
        f"{model._meta.label} has critical receivers, such as {receiver.name}, and was written to "
        f"the database {using!r}, which is not PostgreSQL. Write it to a PostgreSQL database, or "
        "connect the receiver with @receiver."
    )


def _sent(connected: Connected, connection: BaseDatabaseWrapper, named: dict[str, Any]) -> None:
    if connection.vendor != "postgresql":
        raise not_postgresql(connected.model, connected.receiver, connection.alias)
    sent(session_of(connection), connected, named)


past_django.append(_look_past_django)
leaving.append(_settle_due)
connecting.sent.append(_sent)
