"""Patches of cursors, Django's and the driver's: execute wrappers do not see all statements."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorWrapper

from bulksafe import contexts
from bulksafe.patches.patching import Patch, add_property
from bulksafe.statements import text_of
from bulksafe.writer import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _callproc(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    run = functools.partial(original, self, *args, **kwargs)
    if self.db.vendor != "postgresql":
        return run()

    def carried() -> Any:
        with _carrying(self.db, "CALL"):
            return run()

    return watch.watch_of(self.db).run(carried)


def _copy(self: Any) -> Any:
    original = self.cursor.copy
    if self.db.vendor != "postgresql":
        return original

    @functools.wraps(original)
    @contextmanager
    def copy(statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with _carrying(self.db, "COPY"), original(statement, *args, **kwargs) as rows:
            yield rows

    return copy


def _stream(self: Any) -> Any:
    """In autocommit the statement goes without an identity.

    A transaction around it would stay open as long as the rows are not read to the end.
    """
    original = self.cursor.stream
    if self.db.vendor != "postgresql":
        return original

    @functools.wraps(original)
    def stream(query: Any, *args: Any, **kwargs: Any) -> Any:
        carrier = contexts.carrier_of(self.db)
        if carrier is not None:
            carrier.prepare(text_of(query, self.db))
        return original(query, *args, **kwargs)

    return stream


def _carrying(connection: Any, text: str) -> AbstractContextManager[None]:
    carrier = contexts.carrier_of(connection)
    return nullcontext() if carrier is None else carrier.carrying(text)


class _Noticed:
    """A cursor of the driver's that announces each statement before it sends it."""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        contexts.notice(self.connection, query)  # type: ignore[attr-defined]
        return super().execute(query, *args, **kwargs)  # type: ignore[misc]

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        contexts.notice(self.connection, query)  # type: ignore[attr-defined]
        return super().executemany(query, *args, **kwargs)  # type: ignore[misc]

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        contexts.notice(self.connection, query)  # type: ignore[attr-defined]
        return super().stream(query, *args, **kwargs)  # type: ignore[misc]

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        contexts.notice(self.connection, statement)  # type: ignore[attr-defined]
        return super().copy(statement, *args, **kwargs)  # type: ignore[misc]


@functools.cache
def noticed(factory: type) -> type:
    """The class of cursors as a connection has it, with the above before it."""
    if issubclass(factory, _Noticed):
        return factory
    return type(factory.__name__, (_Noticed, factory), {"__module__": factory.__module__})


LATE = (
    Patch(
        CursorWrapper,
        "callproc",
        _callproc,
        "Carries the context, and runs the receivers: execute wrappers are not called for it.",
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
