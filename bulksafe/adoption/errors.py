"""Errors of a table, of one of its rows, and of the server."""

from __future__ import annotations

from bulksafe.sqlstates import sqlstate

#: Classes of SQLSTATE for errors that depend on a row's values: data exceptions, and errors that
#: functions raise.
_OF_A_ROW = ("22", "2F", "38", "39", "P0")

#: Classes of SQLSTATE for errors that are not about a row: a lost connection, a read-only server,
#: missing privileges, tables and functions, too few resources, an operator who ends the session.
_OF_NO_ROW = ("08", "25", "28", "3D", "3F", "42", "53", "57P", "58", "XX")

#: Locks that were not got, deadlocks and serialization failures.
_PASSING = ("55P03", "40P01", "40001")


class Unusable(Exception):  # noqa: N818
    """The table or the rule cannot be looked at. The message says what to do."""


def message_of(error: BaseException) -> str:
    """The first line of an error; without PostgreSQL's DETAIL, which may contain other columns."""
    primary = getattr(getattr(error.__cause__, "diag", None), "message_primary", None)
    text = primary or str(error).partition("\n")[0] or type(error).__name__
    return str(text).rstrip(".")


def depends_on_values(error: BaseException) -> bool:
    """Whether the error is about the values of a row that an expression was evaluated for."""
    return (sqlstate(error) or "").startswith(_OF_A_ROW)


def is_about_no_row(error: BaseException) -> bool:
    """Whether a write would fail in the same way for any other row."""
    return (sqlstate(error) or "").startswith(_OF_NO_ROW)


def goes_away(error: BaseException) -> bool:
    """Whether the same write may succeed a little later."""
    return sqlstate(error) in _PASSING
