"""Handles values that PostgreSQL can store but Python cannot represent."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import DataError

from bulksafe.sqlstates import sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model


@contextmanager
def readable(model: type[Model]) -> Iterator[None]:
    """Wrap the reading of changed rows of a model for its receivers.

    Raises:
        DataError: a value cannot be read, as in a query of the model. The message gives the fix.
    """
    try:
        yield
    except DataError as error:
        # An error of the server's has an SQLSTATE, one of the driver's loaders has none.
        if sqlstate(error) is not None:
            raise
        raise DataError(
            f"The critical receivers of {model._meta.label} cannot be called, since Python cannot "
            f"represent a value of a changed row ({error}). Write a different value, or let "
            f"psycopg "
            f"load "
            "such values: see docs/transaction.md#values-that-python-cannot-hold."
        ) from error.__cause__
