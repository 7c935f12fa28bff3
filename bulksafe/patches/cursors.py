"""Patches of Django's and the driver's cursors: some statements bypass execute wrappers."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self

from django.db.backends.utils import CursorWrapper

from bulksafe import contexts
from bulksafe.joining import Joining
from bulksafe.patches.driver import Cursor
from bulksafe.patches.patching import Patch, add_property
from bulksafe.statements import text_of
from bulksafe.writer import attaching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import _GeneratorContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg import Copy
    from psycopg.abc import Query

    from bulksafe.patches.patching import Original


def _callproc(original: Original[object], self: CursorWrapper, *args: Any, **kwargs: Any) -> object:
    run = functools.partial(original, self, *args, **kwargs)
    if self.db.vendor != "postgresql":
        return run()

    def carried() -> object:
        with _carrying(self.db, "CALL"):
            return run()

    return attaching.watch_of(self.db).run(carried)


def _copy(self: CursorWrapper) -> Callable[..., AbstractContextManager[Copy]]:
    original: Callable[..., AbstractContextManager[Copy]] = self.cursor.copy
    if self.db.vendor != "postgresql":
        return original

    @functools.wraps(original)
    @contextmanager
    def copy(statement: Query, *args: Any, **kwargs: Any) -> Iterator[Copy]:
        with _carrying(self.db, "COPY"), original(statement, *args, **kwargs) as rows:
            yield rows

    return copy


def _stream(self: CursorWrapper) -> Callable[..., Iterator[Any]]:
    """In autocommit the statement runs without an identity.

    A transaction around it would stay open until all rows are read.
    """
    original: Callable[..., Iterator[Any]] = self.cursor.stream
    if self.db.vendor != "postgresql":
        return original

    @functools.wraps(original)
    def stream(query: Query, *args: Any, **kwargs: Any) -> Iterator[Any]:
        carrier = contexts.carrier_of(self.db)
        if carrier is not None:
            carrier.prepare(text_of(query, self.db))
        return original(query, *args, **kwargs)

    return stream


def _carrying(connection: BaseDatabaseWrapper, text: str) -> AbstractContextManager[None]:
    carrier = contexts.carrier_of(connection)
    return nullcontext() if carrier is None else carrier.carrying(text)


class _Noticed(Cursor):
    """A driver cursor that announces each statement before it sends it."""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Self:
        contexts.notice(self.connection, query)
        return super().execute(query, *args, **kwargs)

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        contexts.notice(self.connection, query)
        super().executemany(query, *args, **kwargs)

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        contexts.notice(self.connection, query)
        return super().stream(query, *args, **kwargs)

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> _GeneratorContextManager[Copy]:
        contexts.notice(self.connection, statement)
        return super().copy(statement, *args, **kwargs)


@functools.cache
def noticed(factory: type) -> type:
    """A connection's cursor class with this mixin."""
    if issubclass(factory, _Noticed):
        return factory
    bases = (_Noticed, Joining, factory)
    return type(factory.__name__, bases, {"__module__": factory.__module__})


LATE = (
    Patch(
        CursorWrapper,
        "callproc",
        _callproc,
        "Carries the context and runs the receivers: it bypasses execute wrappers.",
    ),
    Patch(
        CursorWrapper,
        "copy",
        _copy,
        "Carries the context. Django has no such method: it passes on the driver's.",
        add_property,
    ),
    Patch(
        CursorWrapper,
        "stream",
        _stream,
        "Carries the context. Django has no such method: it passes on the driver's.",
        add_property,
    ),
)
