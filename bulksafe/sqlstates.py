"""The SQLSTATE of an error that Django raises for one of the driver's."""

from __future__ import annotations

from django.db import DatabaseError, DataError, IntegrityError

#: A role lacks a right.
NOT_ALLOWED = "42501"


#: Classes of errors that say nothing about the values in a query: connections, the state of the
#: transaction, prepared statements, other transactions, names and privileges, resources, locks,
#: operators, the system.
_NOT_ABOUT_VALUES = frozenset({"08", "25", "26", "40", "42", "53", "55", "57", "58"})


def is_about_values(error: DatabaseError) -> bool:
    """Whether the values in a query caused the error, also by way of a function or a type."""
    state = sqlstate(error)
    if state is None:
        return isinstance(error, DataError | IntegrityError)
    return state[:2] not in _NOT_ABOUT_VALUES


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE; None if the server did not raise the error."""
    found: str | None = getattr(error.__cause__, "sqlstate", None)
    return found
