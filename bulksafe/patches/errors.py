"""The driver's errors of our triggers become bulksafe's, whichever way a statement takes."""

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
    """Django's translation of driver errors, with two exception classes more.

    It sits where Django turns psycopg's errors into its own, so that the class is the same at a
    statement, while rows are fetched and at the commit.
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, _FromDriver):
            # The cause is to be the driver's own error.
            error = error.__cause__
        violation = error and violation_from(error)
        if violation:
            raise violation.with_traceback(traceback) from error
        super().__exit__(kind, error, traceback)


class _FromDriver(psycopg.Error):
    """Marks what a cursor of the driver's raises."""


@functools.cache
def _both(ours: type[IntegrityError], drivers: type[psycopg.Error]) -> type[_FromDriver]:
    """A subclass of ours and of the driver's: code with the driver's cursors expects the latter."""

    def reduce(self: _FromDriver) -> str | tuple[Any, ...]:
        return violation_from(self).__reduce__()

    namespace = {"__module__": ours.__module__, "__reduce__": reduce}
    return type(ours.__name__, (ours, _FromDriver, drivers), namespace)


def _raise(error: psycopg.Error) -> None:
    """Raise what the driver's error is to bulksafe; return if it is nothing of its own."""
    violation = violation_from(error)
    if violation is None:
        return
    both = _both(*map(type, (violation, error)))
    translated = both.__new__(both)
    translated.__dict__.update({**error.__dict__, **violation.__dict__})
    translated.args = error.args
    raise translated from error


class _Translating(Cursor):
    """A cursor of the driver's: for ``copy()``, and what is executed past Django's cursors."""

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
    """The class of cursors as a connection has it, with the above before it."""
    if issubclass(factory, _Translating):
        return factory
    return type(factory.__name__, (_Translating, factory), {"__module__": factory.__module__})
