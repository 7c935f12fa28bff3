"""The results of the listener's benchmark, as tables for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.listener import backlog, commits, creating, draining, latency
from benchmarks.listener.results import SECTIONS, Comparison, Results
from benchmarks.reporting import Grid, describe, environment
from benchmarks.timings import Spread

LIBRARIES = ["procrastinate", "pgqueuer", "asyncpg", "django-pgpubsub"]

_COMPARISONS: dict[str, Callable[[Results], Iterator[Comparison]]] = {
    "a": draining.comparisons,
    "b": latency.comparisons,
    "c": commits.comparisons,
    "d": creating.comparisons,
    "e": backlog.comparisons,
}


def about() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {**environment(), "libraries": {name: _version(name) for name in LIBRARIES}}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def lines(found: dict[str, Any]) -> list[str]:
    libraries = ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
    return [*describe(found), f"Libraries: {libraries}"]


def sections(results: Results) -> list[str]:
    return [section for section in SECTIONS if any(k.section == section for k in results.values)]


def comparisons(results: Results) -> list[Comparison]:
    return [one for section in sections(results) for one in _COMPARISONS[section](results)]


def grids(results: Results) -> list[Grid]:
    """For each section what was measured, and what it comes to."""
    found = []
    for section in sections(results):
        found.append(_figures(results, section))
        found.append(_ratios(results, section))
    return found


def _figures(results: Results, section: str) -> Grid:
    keys = [key for key in results.values if key.section == section]
    measures = list(dict.fromkeys(key.measure for key in keys))
    keys.sort(key=lambda key: measures.index(key.measure))
    rounds = max(len(results.values[key]) for key in keys)
    return Grid(
        f"{SECTIONS[section]}: {rounds} {'round' if rounds == 1 else 'rounds'}",
        ["measured", "who", "median", "lowest to highest"],
        2,
        [[key.measure, key.variant, *_cells(Spread.of(results.values[key]))] for key in keys],
        "\n".join(results.notes.get(section, [])),
    )


def _ratios(results: Results, section: str) -> Grid:
    return Grid(
        f"({section}) compared",
        ["measured", "ratio", "aim", "reached", "lowest to highest", "verdict"],
        2,
        [
            [
                one.measure,
                one.subject,
                str(one.aim or ""),
                *_cells(one.ratio, digits=2),
                one.verdict,
            ]
            for one in _COMPARISONS[section](results)
        ],
    )


def _cells(spread: Spread, digits: int | None = None) -> list[str]:
    shown = _digits(spread.middle) if digits is None else digits
    return [
        f"{spread.middle:,.{shown}f}",
        f"{spread.low:,.{shown}f} to {spread.high:,.{shown}f}",
    ]


def _digits(value: float) -> int:
    return 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2


def write_markdown(path: Path, found: dict[str, Any], results: Results) -> None:
    parts = [*lines(found), *(grid.as_markdown() for grid in grids(results))]
    path.write_text("\n\n".join(parts).replace("\n\n\n", "\n\n") + "\n")


def write_json(path: Path, found: dict[str, Any], results: Results) -> None:
    content = {
        "environment": found,
        "notes": results.notes,
        "values": [{**asdict(key), "rounds": values} for key, values in results.values.items()],
        "comparisons": [
            {**asdict(one), "aim": one.aim and str(one.aim), "verdict": one.verdict}
            for one in comparisons(results)
        ],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
