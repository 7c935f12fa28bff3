"""Which statements may carry commands, by their text."""

from __future__ import annotations

import re

#: Statements that commands may precede in one message. A message cannot contain COPY, VACUUM and
#: the like beside others; they are sent alone.
_JOINABLE = re.compile(
    r"\s*(?:INSERT|UPDATE|DELETE|MERGE|SELECT|WITH|SAVEPOINT|RELEASE)\b", re.IGNORECASE
)
#: Commands that end savepoints, or the transaction.
_ENDS = re.compile(r"\s*(?:ROLLBACK|ABORT|COMMIT|END|PREPARE\s+TRANSACTION)\b", re.IGNORECASE)

#: Django's commands, which have no syntax errors.
_SAVEPOINT = re.compile(r'(?:RELEASE )?SAVEPOINT "\w+"')

#: The hashes of statement texts that the server has parsed.
_parsed: set[int] = set()
_MOST_PARSED = 20_000


def is_joinable(text: object) -> bool:
    """Whether commands may precede a statement in one message."""
    return isinstance(text, str) and _JOINABLE.match(text) is not None


def ends_savepoints(text: object) -> bool:
    """Whether a statement ends savepoints, or the transaction."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return isinstance(text, str) and _ENDS.match(text) is not None


def is_parsed(text: str) -> bool:
    """Whether the text is known to be free of syntax errors."""
    return hash(text) in _parsed or _SAVEPOINT.fullmatch(text) is not None


def note_parsed(text: str) -> None:
    """The server has executed a statement."""
    if len(_parsed) < _MOST_PARSED:
        _parsed.add(hash(text))
