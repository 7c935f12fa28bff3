"""Converts driver errors of our triggers to bulksafe's exceptions, on every path of a statement."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import psycopg
from django.db.utils import DatabaseErrorWrapper

from bulksafe.exceptions import violation_from
from bulksafe.patches.driver import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from django.db import IntegrityError


class ViolationWrapper(DatabaseErrorWrapper):
    """Django's translation of driver errors, with two more exception classes.

    It replaces Django's translation of psycopg's errors, so the class is the same at a
    statement, while rows are fetched and at the commit.
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, _FromDriver):
            # The cause must be the driver's own error.
            error = error.__cause__
        violation = error and violation_from(error)
        if violation:
            raise violation.with_traceback(traceback) from error
        super().__exit__(kind, error, traceback)


class _FromDriver(psycopg.Error):
    """Marks errors that a driver cursor raises."""


@functools.cache
def _both(ours: type[IntegrityError], drivers: type[psycopg.Error]) -> type[_FromDriver]:
    """A subclass of both classes: code with driver cursors expects the driver's class."""

    def reduce(self: _FromDriver) -> str | tuple[Any, ...]:
        return violation_from(self).__reduce__()

    namespace = {"__module__": ours.__module__, "__reduce__": reduce}
    return type(ours.__name__, (ours, _FromDriver, drivers), namespace)


def _raise(error: psycopg.Error) -> None:
    """Raise the driver's error as bulksafe's exception; return if it is not bulksafe's."""
    violation = violation_from(error)
    if violation is None:
        return
    both = _both(*map(type, (violation, error)))
    translated = both.__new__(both)
    translated.__dict__.update({**error.__dict__, **violation.__dict__})
    translated.args = error.args
    raise translated from error


class _Translating(Cursor):
    """A driver cursor: covers ``copy()`` and statements that bypass Django's cursors."""

    def execute(self, *args: Any, **kwargs: Any) -> Self:
        try:
            return super().execute(*args, **kwargs)
        except psycopg.IntegrityError as error:
            _raise(error)
            raise

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().executemany(*args, **kwargs)
        except psycopg.IntegrityError as error:
            _raise(error)
            raise

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from super().stream(*args, **kwargs)
        except psycopg.IntegrityError as error:
            _raise(error)
            raise

    @contextmanager
    def copy(self, *args: Any, **kwargs: Any) -> Iterator[psycopg.Copy]:
        try:
            with super().copy(*args, **kwargs) as rows:
                yield rows
        except psycopg.IntegrityError as error:
            _raise(error)
            raise


@functools.cache
def translating(factory: type) -> type:
    """A connection's cursor class with this mixin."""
    if issubclass(factory, _Translating):
        return factory
    return type(factory.__name__, (_Translating, factory), {"__module__": factory.__module__})
