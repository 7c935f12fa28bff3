"""The results as tables for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from itertools import groupby
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import django
import pgtrigger
import psycopg
from rich.console import Console
from rich.table import Table

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
    """What the times depend on besides the code."""
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


def show_environment(console: Console, found: dict[str, Any]) -> None:
    settings = ", ".join(f"{key}={value}" for key, value in found["server_settings"].items())
    console.print(
        f"PostgreSQL {found['postgresql']}, Django {found['django']}, "
        f"django-pgtrigger {found['pgtrigger']}, psycopg {found['psycopg']}, "
        f"Python {found['python']}; {found['cpus']} CPUs, load at the start {found['load']:.2f}"
    )
    console.print(f"Server: {settings}", style="dim")


def show(console: Console, timings: Timings) -> None:
    for rows in timings.sizes:
        for operation in variants.OPERATIONS:
            if any(timings.has(rows, operation, key) for key in variants.BY_KEY):
                console.print(times_table(timings, rows, operation))
    for section, found in groupby(comparisons(timings), key=lambda one: one.section):
        console.print(comparison_table(section, list(found)))


def times_table(timings: Timings, rows: int, operation: str) -> Table:
    """Times per row; what was written in bulk beside what the rules add to it."""
    in_bulk = operation in variants.BULK_OPERATIONS
    count = len(next(v for (r, o, _), v in timings.values.items() if (r, o) == (rows, operation)))
    table = Table(
        title=f"{variants.OPERATIONS[operation]} · table of {rows:,} rows · {count} rounds",
        title_justify="left",
    )
    table.add_column("rules")
    for heading in ("µs per row", "lowest to highest", *(("added µs", "ratio") if in_bulk else ())):
        table.add_column(heading, justify="right")
    for key, variant in variants.BY_KEY.items():
        if timings.has(rows, operation, key):
            cells = _times_cells(timings.of(rows, operation, key))
            if in_bulk:
                cells += _bulk_cells(timings, rows, operation, key)
            table.add_row(variant.label, *cells)
    if in_bulk:
        of_noise = noise_of(timings, rows, operation) * MICROSECOND
        table.caption = f"noise (none against none): {of_noise:.2f} µs per row"
    return table


def _times_cells(values: list[float]) -> list[str]:
    spread = Spread.of([value * MICROSECOND for value in values])
    return [f"{spread.middle:.2f}", f"{spread.low:.2f} to {spread.high:.2f}"]


def _bulk_cells(timings: Timings, rows: int, operation: str, key: str) -> list[str]:
    adds = median(added_cost(timings, rows, operation, key)) * MICROSECOND
    against = ratio(timings.of(rows, operation, key), without_rules(timings, rows, operation))
    return [f"{adds:+.2f}", f"{against.middle:.2f}"]


def comparison_table(section: str, found: list[Comparison]) -> Table:
    table = Table(title=SECTIONS[section], title_justify="left")
    for heading in ("rows", "write", "compared", "ratio of"):
        table.add_column(heading, justify="right" if heading == "rows" else "left")
    for heading in ("aim", "reached", "lowest to highest"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for one in found:
        table.add_row(
            f"{one.rows:,}",
            variants.OPERATIONS[one.operation],
            one.subject,
            one.measure,
            str(one.aim or ""),
            f"{one.ratio.middle:.2f}" if one.ratio else "—",
            f"{one.ratio.low:.2f} to {one.ratio.high:.2f}" if one.ratio else "",
            _styled(one.verdict),
        )
    return table


def _styled(verdict: str) -> str:
    style = {"reached": "green", "missed": "red"}.get(verdict)
    return f"[{style}]{verdict}[/]" if style else verdict


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
