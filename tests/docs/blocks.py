"""The fenced blocks of the documentation's pages."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"

#: ``test_checks.py`` and ``test_receiver_checks.py`` evaluate the examples of this page.
ERRORS = DOCS / "errors.md"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)

_FENCE = re.compile(r"^( *)```([^\n`]+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the tag after the backticks; a directive of MyST has braces.
        line: of the opening fence.
    """

    page: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.relative_to(DOCS)}, line {self.line}"


def blocks_of(page):
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[2], textwrap.dedent(match[3]))
        for match in _FENCE.finditer(text)
    ]
