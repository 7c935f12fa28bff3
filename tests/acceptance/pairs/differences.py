"""The cells in which a bulk write does not end as its per-row equivalent yet.

``differences.txt`` has a paragraph for each case: its title, and below it each path with the
numbers of rows.
"""

from __future__ import annotations

from functools import cache
from itertools import groupby
from pathlib import Path as File
from typing import TypeAlias

from tests.acceptance.pairs.case import Case
from tests.acceptance.pairs.paths import Path

Cell: TypeAlias = tuple[str, str, int]

FILE = File(__file__).with_name("differences.txt")

_found: dict[Cell, None] = {}


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
    return f"case {case}" if (str(case), path.title, size) in listed() else ""


def add(case: Case, path: Path, size: int) -> None:
    _found[str(case), path.title, size] = None


def write() -> None:
    paragraphs = []
    for title, of_case in groupby(_found, key=lambda cell: cell[0]):
        lines = [
            f"    {path}: {', '.join(str(size) for *_, size in cells)}"
            for path, cells in groupby(of_case, key=lambda cell: cell[1])
        ]
        paragraphs.append("\n".join([title, *lines]))
    FILE.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
