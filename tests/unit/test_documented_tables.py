"""Every row of a table on a page has the cells of its heading: a wrapped line ends the table."""

import re

import pytest

from tests.unit.test_documented_links import PAGES, ROOT, prose

_RULE = re.compile(r"^\|(?: *:?-+:? *\|)+$")
#: A “|” inside a cell is written “\|”.
_EDGE = re.compile(r"(?<!\\)\|")


def cells(line):
    return len(_EDGE.findall(line)) - 1


def damaged(text):
    """The lines of tables that are not whole rows."""
    width = 0
    for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        if _RULE.match(line):
            width = cells(line)
            if cells(before) != width:
                yield before
        elif not line.strip():
            width = 0
        elif width and not (line.startswith("|") and line.endswith("|") and cells(line) == width):
            yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_rows_are_whole(page):
    assert not list(damaged(prose(page)))


@pytest.mark.parametrize(
    "row",
    ["| a | b\n| c |", "| a |", "| a | b | c |", "and more"],
    ids=["wrapped", "short", "long", "text"],
)
def test_a_damaged_row_is_found(row):
    assert list(damaged(f"| x | y |\n|---|---|\n| 1 | 2 |\n{row}\n\nText.\n"))
