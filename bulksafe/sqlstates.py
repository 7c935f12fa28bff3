"""The SQLSTATE of an error that Django raises for one of the driver's."""

from __future__ import annotations

#: A role lacks a right.
NOT_ALLOWED = "42501"


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE; None if the server did not raise the error."""
    found: str | None = getattr(error.__cause__, "sqlstate", None)
    return found
