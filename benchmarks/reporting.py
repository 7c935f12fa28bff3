"""The results as tables for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from itertools import groupby
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, Literal

import django
import pgtrigger
import psycopg
from rich.table import Table
from rich.text import Text

from benchmarks import database, variants
from benchmarks.comparing import (
    SECTIONS,
    Comparison,
    added_cost,
    comparisons,
    noise_of,
    without_rules,
)
from benchmarks.timings import Spread, Timings, ratio

MICROSECOND = 1e6


def environment() -> dict[str, Any]:
    """The environment that the times depend on."""
    return {
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "postgresql": database.server_version(),
        "server_settings": database.settings_in_force(),
        "django": django.__version__,
        "pgtrigger": pgtrigger.__version__,
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
        "python": platform.python_version(),
    }


def describe(found: dict[str, Any]) -> list[str]:
    """The environment in two lines."""
    settings = ", ".join(f"{key}={value}" for key, value in found["server_settings"].items())
    return [
        f"PostgreSQL {found['postgresql']}, Django {found['django']}, "
        f"django-pgtrigger {found['pgtrigger']}, psycopg {found['psycopg']}, "
        f"Python {found['python']}; {found['cpus']} CPUs, load at the start {found['load']:.2f}",
        f"Server: {settings}",
    ]


@dataclass(frozen=True)
class Grid:
    """A table for any output. Columns are ``headings``, text first."""

    title: str
    headings: list[str]
    text_columns: int
    lines: list[list[str]]
    caption: str = ""

    def as_rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", caption=self.caption or None)
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify=self._justify(number))
        for line in self.lines:
            table.add_row(*line[:-1], _coloured(line[-1]))
        return table

    def as_markdown(self) -> str:
        rule = ["---:" if self._justify(i) == "right" else "---" for i in range(len(self.headings))]
        rows = [self.headings, rule, *self.lines]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return "\n\n".join(part for part in (f"**{self.title}**", table, self.caption) if part)

    def _justify(self, column: int) -> Literal["left", "right"]:
        return "left" if column < self.text_columns else "right"


def grids(timings: Timings) -> list[Grid]:
    """All tables of the report: the times first, then the comparisons."""
    times = [
        times_grid(timings, rows, operation)
        for rows in timings.sizes
        for operation in variants.OPERATIONS
        if any(timings.has(rows, operation, key) for key in variants.BY_KEY)
    ]
    sections = groupby(comparisons(timings), key=lambda one: one.section)
    return times + [comparison_grid(section, list(found)) for section, found in sections]


def times_grid(timings: Timings, rows: int, operation: str) -> Grid:
    """Times per row; what was written in bulk beside what the rules add to it."""
    in_bulk = operation in variants.BULK_OPERATIONS
    shown = [key for key in variants.BY_KEY if timings.has(rows, operation, key)]
    rounds = len(timings.of(rows, operation, shown[0]))
    noise = noise_of(timings, rows, operation) * MICROSECOND if in_bulk else 0
    return Grid(
        f"{variants.OPERATIONS[operation]}: {rows:,} rows, {rounds} rounds",
        ["rules", "µs per row", "lowest to highest", *(["added µs", "ratio"] if in_bulk else [])],
        1,
        [
            [
                variants.BY_KEY[key].label,
                *_times_cells(timings.of(rows, operation, key)),
                *(_bulk_cells(timings, rows, operation, key) if in_bulk else []),
            ]
            for key in shown
        ],
        f"noise (none against none): {noise:.2f} µs per row" if in_bulk else "",
    )


def _times_cells(values: list[float]) -> list[str]:
    spread = Spread.of([value * MICROSECOND for value in values])
    return [f"{spread.middle:.2f}", f"{spread.low:.2f} to {spread.high:.2f}"]


def _bulk_cells(timings: Timings, rows: int, operation: str, key: str) -> list[str]:
    adds = median(added_cost(timings, rows, operation, key)) * MICROSECOND
    against = ratio(timings.of(rows, operation, key), without_rules(timings, rows, operation))
    return [f"{adds:+.2f}", f"{against.middle:.2f}"]


def comparison_grid(section: str, found: list[Comparison]) -> Grid:
    return Grid(
        SECTIONS[section],
        "write,compared,ratio of,rows,aim,reached,lowest to highest,verdict".split(","),
        3,
        [
            [
                variants.OPERATIONS[one.operation],
                one.subject,
                one.measure,
                f"{one.rows:,}",
                str(one.aim or ""),
                f"{one.ratio.middle:.2f}" if one.ratio else "—",
                f"{one.ratio.low:.2f} to {one.ratio.high:.2f}" if one.ratio else "",
                one.verdict,
            ]
            for one in found
        ],
    )


def _coloured(cell: str) -> Text:
    return Text(cell, style={"reached": "green", "missed": "red"}.get(cell, ""))


def write_markdown(path: Path, about: dict[str, Any], timings: Timings) -> None:
    """Write the report for ``docs/benchmarks-rules.md``: the comparisons before the times."""
    found = grids(timings)
    found.sort(key=lambda grid: grid.title not in SECTIONS.values())
    parts = [*describe(about), *(grid.as_markdown() for grid in found)]
    path.write_text("\n\n".join(parts) + "\n")


def write_json(
    path: Path, about: dict[str, Any], kept: dict[str, list[str]], timings: Timings
) -> None:
    """Write all times and all comparisons; the times are seconds per row."""
    content = {
        "environment": about,
        "kept_rules": kept,
        "seconds_per_row": [
            {"rows": rows, "operation": operation, "variant": variant, "rounds": values}
            for (rows, operation, variant), values in timings.values.items()
        ],
        "comparisons": [_as_json(one) for one in comparisons(timings)],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _as_json(one: Comparison) -> dict[str, Any]:
    found = asdict(one) | {"aim": one.aim and str(one.aim), "verdict": one.verdict}
    if one.ratio:
        # JSON has no infinity.
        found["ratio"] = {k: v if isfinite(v) else None for k, v in found["ratio"].items()}
    return found
