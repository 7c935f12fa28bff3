"""Positions of errors in a statement that was sent after commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import DiagnosticField

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

#: The line that libpq appends to a message, and its pointer.
_LINE = re.compile(r"^(\w+ )(\d+)(: .*\n)( *)(?=\^)", re.MULTILINE)


def in_statement(
    error: psycopg.Error, result: PGresult, encoding: str, before: str
) -> psycopg.Error:
    """The error as if its statement had been sent alone.

    Args:
        result: the error's result.
        encoding: the connection's, as Python names it.
        before: the text before the statement; its lines are complete.
    """
    position = result.error_field(DiagnosticField.STATEMENT_POSITION)
    if position is None:
        return error
    info: dict[int, bytes | None] = {one: result.error_field(one) for one in DiagnosticField}
    info[DiagnosticField.STATEMENT_POSITION] = b"%d" % max(int(position) - len(before), 1)
    lines = before.count("\n")

    def renumbered(found: re.Match[str]) -> str:
        number = str(max(int(found[2]) - lines, 1))
        spaces = found[4][len(found[2]) - len(number) :]
        return f"{found[1]}{number}{found[3]}{spaces}"

    message = _LINE.sub(renumbered, str(error))
    return type(error)(message, info=info, encoding=encoding)
