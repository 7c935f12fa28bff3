"""The cells in which a bulk write does not end as its per-row equivalent yet.

``differences.txt`` has a paragraph for each case: its title, and below it each path with the
numbers of rows. ``write()`` replaces the cells that ran and keeps the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path as File
from typing import TypeAlias

from tests.acceptance.pairs.case import Case
from tests.acceptance.pairs.paths import Path

Cell: TypeAlias = tuple[str, str, int]

FILE = File(__file__).with_name("differences.txt")

#: Each cell that ran, and whether it differs.
_ran: dict[Cell, bool] = {}


def cell(case: Case, path: Path, size: int) -> Cell:
    return str(case), path.title, size


@cache
def listed() -> frozenset[Cell]:
    cells = set()
    for paragraph in FILE.read_text(encoding="utf-8").split("\n\n"):
        title, *lines = paragraph.strip().splitlines() or [""]
        for line in lines:
            path, _, sizes = line.strip().rpartition(": ")
            cells |= {(title, path, int(size)) for size in sizes.split(", ")}
    return frozenset(cells)


def known(case: Case, path: Path, size: int) -> str:
    """Why the cell fails, or nothing."""
    return f"case {case}" if cell(case, path, size) in listed() else ""


def add(case: Case, path: Path, size: int, *, differs: bool) -> None:
    _ran[cell(case, path, size)] = differs


def write(cells: Iterable[Cell]) -> None:
    """Write the list again, in the order of all cells that exist."""
    text = as_text(cell for cell in cells if _ran.get(cell, cell in listed()))
    FILE.write_text(text, encoding="utf-8")


def as_text(cells: Iterable[Cell]) -> str:
    paragraphs = []
    for title, of_case in groupby(cells, key=lambda cell: cell[0]):
        lines = [
            f"    {path}: {', '.join(str(size) for *_, size in of_path)}"
            for path, of_path in groupby(of_case, key=lambda cell: cell[1])
        ]
        paragraphs.append("\n".join([title, *lines]))
    return "\n\n".join(paragraphs) + "\n" if paragraphs else ""
