"""Tokenizes SQL text, with strings, comments, quoted names and function bodies."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | --[^\n]* | /\*.*?\*/ )
    | (?P<text> [EeBbXxNn]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | (?P<tag>\$\w*\$).*?(?P=tag) )
    | (?P<name> "(?:[^"]|"")+" )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """A piece of SQL.

    Attributes:
        kind: ``text``, ``name`` (quoted), ``word`` or ``other``.
        text: the source text; words in upper case.
        start: its position.
        depth: the nesting depth of parentheses and ``CASE … END``.
    """

    kind: str
    text: str
    start: int
    depth: int

    @property
    def identifier(self) -> str:
        """The identifier."""
        if self.kind == "name":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower()

    @property
    def is_identifier(self) -> bool:
        return self.kind in {"name", "word"}


def tokens(text: str) -> list[Token]:
    """The tokens of a text, without spaces and comments."""
    found, depth = [], 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup if match["tag"] is None else "text"
        piece = match[0]
        if kind == "space":
            continue
        assert kind is not None  # noqa: S101
        shown = piece.upper() if kind == "word" else piece
        # Keywords inside CASE … END are not clauses of the statement.
        if shown in {")", "END"}:
            depth -= 1
        found.append(Token(kind, shown, match.start(), depth))
        if shown in {"(", "CASE"}:
            depth += 1
    return found
