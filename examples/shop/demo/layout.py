"""What the tables of the report have in common."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

#: A title, or "", and what stands below it.
Section = tuple[str, RenderableType]


def columns(gap: int = 2) -> Table:
    """A table with a header and so many blanks between its columns."""
    return Table(box=None, padding=(0, gap, 0, 0), header_style="underline")


def words() -> Table:
    """A table of words and what there is to say of them."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def wrong(number: int) -> Text:
    """A number that is to be zero."""
    return Text(f"{number:,}", "bold red" if number else "green")


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
