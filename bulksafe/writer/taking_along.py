"""Takes the changes of a statement in the same message as the statement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from bulksafe.joining import Tail, allows_tail, following
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED
from bulksafe.writer.buffer import refusal_of
from bulksafe.writer.readable import readable
from bulksafe.writer.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model
    from psycopg import Cursor

    from bulksafe.writer.session import Session
    from bulksafe.writer.taking import Kind

_OPERATIONS = {"INSERT": INSERTED, "UPDATE": UPDATED, "DELETE": DELETED}

#: An upsert makes two kinds of changes.
_UPSERTS = re.compile(r"\bDO\s+UPDATE\b", re.IGNORECASE)


def kind_of(session: Session, text: str, cursor: Cursor[Any]) -> Kind | None:
    """The changes of a statement, if it makes one kind only and they can come back with it.

    Args:
        cursor: the driver's, that executes it.
    """
    operation = _OPERATIONS.get(text.lstrip()[:6].upper())
    if operation is None or _UPSERTS.search(text):
        return None
    named = vocabulary_of(session.connection).named(text)
    kind = kind_on(session, named[0], operation, cursor) if len(named) == 1 else None
    # Many lean rows are faster without the columns that are read for others.
    return None if kind is None or (kind.is_lean and operation != UPDATED) else kind


def kind_on(
    session: Session, model: type[Model], operation: str, cursor: Cursor[Any]
) -> Kind | None:
    """The changes of a model's rows by an operation, if they can come back with the statement.

    They can if some have been taken before: the buffer exists, and the role may read it.
    """
    if session.due or session.is_migrating or not allows_tail(cursor):
        return None
    source = session.buffer.source_of(model)
    kind = None if source is None else source.kind(operation)
    return kind if kind is not None and kind.home else None


def execute_and_take(
    session: Session, cursor: Cursor[Any], text: str, execute: Callable[[], Any], kind: Kind
) -> Any:
    """Execute a statement, and take its changes in the same message.

    Args:
        text: the statement.
        cursor: the driver's, that executes it.

    Raises:
        ReceiversNotRun: the connection's role may not take them.
    """
    with following(cursor, Tail(text, query=session.buffer.request(kind))) as query:
        try:
            result = execute()
        except DatabaseError as error:
            refusal = refusal_of(error) if query.has_failed else error
            if refusal is error:
                raise
            raise refusal from error
    if query.result is None:
        # A user's execute wrapper has replaced the statement: the changes are still buffered.
        return result
    with readable(kind.source.model):
        taken = kind.all_taken(query.rows())
    session.buffer.keep_taken(kind, taken)
    return result
