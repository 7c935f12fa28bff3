"""What a connection sends to the server, taken from libpq's own trace and made readable."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from psycopg.pq import Trace

#: A message of the client's in the trace: its type, and the rest of it.
_SENT = re.compile(r"^F\t\d+\t(\w+)(.*?)(?=^[BF]\t|\Z)", re.MULTILINE | re.DOTALL)


@contextmanager
def recorded(driver: Any) -> Iterator[list[str]]:
    """libpq's trace of the block, as the one text of the list that is yielded, after the block.

    libpq writes the trace, so nothing that Django, psycopg or bulksafe sends is missed. It writes
    one on Linux only.
    """
    texts: list[str] = []
    with tempfile.TemporaryFile() as file:
        driver.pgconn.trace(file.fileno())
        driver.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS | Trace.REGRESS_MODE)
        try:
            yield texts
        finally:
            driver.pgconn.untrace()
            file.seek(0)
            texts.append(file.read().decode())


@contextmanager
def traced(driver: Any) -> Iterator[list[str]]:
    """What the driver's connection sends in the block: one line for each round trip."""
    lines: list[str] = []
    texts: list[str] = []
    try:
        with recorded(driver) as texts:
            yield lines
    finally:
        lines += (trip for text in texts for trip in _trips(text))


def _trips(trace: str) -> Iterator[str]:
    names: dict[str, str] = {}
    together: list[str] = []
    for kind, rest in _SENT.findall(trace):
        if kind == "Query":
            yield readable(_text(rest), names)
        elif kind == "Parse":
            together.append(readable(_text(rest), names))
        elif kind == "CopyDone":
            yield "the rows of the COPY"
        elif kind == "Sync":
            yield ", ".join(counted(together)) + (" (a pipeline)" if len(together) > 1 else "")
            together = []


def _text(rest: str) -> str:
    """The SQL of a Query, or of a Parse, which has the statement's name before it."""
    text = rest.strip().removeprefix('""').lstrip()
    return text[text.index('"') + 1 : text.rindex('"')]


def counted(lines: list[str]) -> list[str]:
    """Equal lines that follow each other, as one with their number."""
    runs = [(line, len(list(run))) for line, run in groupby(lines)]
    return [line if number == 1 else f"{number:,} × {line}" for line, number in runs]


# One line for each message.


def readable(sql: str, savepoints: dict[str, str]) -> str:
    """A statement without values, and ours by what they do.

    Args:
        savepoints: their names by what Django calls them; it is added to.
    """
    text = " ".join(sql.split()).replace('"', "")
    commands = _COMMANDS.match(text)
    assert commands is not None
    before, text = commands[0], text[commands.end() :]
    for pattern, short in _SHORT:
        text = pattern.sub(short, text)
    # What follows a statement in the same message.
    text = "; ".join(map(_described, text.split(" ; ")))
    return _SAVEPOINT.sub(
        lambda m: f"{m[1]} {savepoints.setdefault(m[2], f's{len(savepoints) + 1}')}", before + text
    )


def _described(text: str) -> str:
    for pattern, describe in _OURS:
        found = pattern.match(text)
        if found is not None:
            return f"bulksafe: {describe(found)}"
    return text


#: What travels in front of a statement.
_COMMANDS = re.compile(r"(?:(?:BEGIN|SAVEPOINT \w+|RELEASE SAVEPOINT \w+); )*")
_SAVEPOINT = re.compile(r"\b(SAVEPOINT) (\w+)")
_VALUE = r"(?:\?|\(\?\))(?:::[a-z ]+)?"
_ROW = rf"\({_VALUE}(?:, {_VALUE})*\)"


def _rows(found: re.Match[str]) -> str:
    rows = re.findall(_ROW, found[0])
    return f"{len(rows):,} × {rows[0]}" if len(rows) > 1 else rows[0]


def _list(found: re.Match[str]) -> str:
    return f"({found[0].count('?'):,} × ?)"


#: What is replaced in each statement, one after the other.
_SHORT: list[tuple[re.Pattern[str], Any]] = [
    (re.compile(r"\bpg_catalog\.|\bpublic\."), ""),
    (re.compile(r"/\* bulksafe: (.*?) \d+ (\w+) \*/"), r"/* \1 \2 */"),
    (re.compile(r"\bpractice_critical(\w+)\b"), r"\1"),
    (re.compile(r"\bpractice_(\w+)\b"), r"\1"),
    (re.compile(r"UNNEST\(.*\[\]\)"), "UNNEST(…)"),
    (re.compile(r"\(CASE WHEN .*? END\)"), "(CASE … END)"),
    # A column of the only table of a statement.
    (re.compile(r"\b(?:tag|log|book_tags|book)\.(?=\w+)"), ""),
    (re.compile(r"'(?:[^']|'')*'"), "?"),
    (re.compile(r"(?<![\w.$])-?\d+(?:\.\d+)?\b(?!\s*×)|\$\d+\b"), "?"),
    (re.compile(r"(?<=IN )\((?:\?|\(\?\))(?:, (?:\?|\(\?\)))+\)"), _list),
    (re.compile(rf"(?<=VALUES ){_ROW}(?:, {_ROW})*"), _rows),
]

_ASSIGNED = re.compile(r"(\w+) = v\.")

Describe = Callable[[re.Match[str]], str]

#: Statements of ours that take part in a write, and what they do.
_OURS: list[tuple[re.Pattern[str], Describe]] = [
    (
        re.compile(r"WITH taken AS .*bulksafe_take.*? SELECT e\.seq, CASE WHEN \(SELECT"),
        lambda m: "take the rows that the statement has changed",
    ),
    (
        re.compile(r"WITH taken AS .*bulksafe_take"),
        lambda m: "take the rows, as they were and as they are",
    ),
    (
        re.compile(r"SELECT \? FROM (\w+) AS t JOIN .* FOR UPDATE OF t$"),
        lambda m: f"lock the rows of {m[1]}",
    ),
    (
        re.compile(r"SELECT .* FROM (\w+) AS t JOIN .* jsonb_populate_record"),
        lambda m: f"read the rows of {m[1]} again",
    ),
    (
        re.compile(r"SELECT COALESCE\(\(.*?\), false\) FROM \(SELECT"),
        lambda m: "ask whether an object meets when=",
    ),
    (
        re.compile(r"UPDATE (\w+) AS t SET (.*?) FROM \(VALUES"),
        lambda m: f"store {', '.join(_ASSIGNED.findall(m[2]))} of the rows of {m[1]}",
    ),
]
