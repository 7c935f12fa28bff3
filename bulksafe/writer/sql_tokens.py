"""The tokens of SQL text: strings, comments, quoted names and function bodies are recognised."""

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
        text: as it stands; a word in upper case.
        start: where it begins.
        depth: how many parentheses and ``CASE … END`` it is in.
    """

    kind: str
    text: str
    start: int
    depth: int

    @property
    def identifier(self) -> str:
        """What it names."""
        if self.kind == "name":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower()

    @property
    def is_identifier(self) -> bool:
        return self.kind in {"name", "word"}


def tokens(text: str) -> list[Token]:
    """The text in pieces, without spaces and comments."""
    found, depth = [], 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup if match["tag"] is None else "text"
        piece = match[0]
        if kind == "space":
            continue
        assert kind is not None  # noqa: S101
        shown = piece.upper() if kind == "word" else piece
        # What is inside CASE … END is no clause of the statement.
        if shown in {")", "END"}:
            depth -= 1
        found.append(Token(kind, shown, match.start(), depth))
        if shown in {"(", "CASE"}:
            depth += 1
    return found
