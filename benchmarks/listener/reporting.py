"""The results of the listener's benchmark."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.listener import backlog, commits, creating, draining, latency, side_by_side
from benchmarks.listener.plan import SECTIONS
from benchmarks.report import Report
from benchmarks.reporting import describe, environment

LIBRARIES = ["procrastinate", "pgqueuer", "asyncpg", "django-pgpubsub"]

REPORT = Report(
    SECTIONS,
    {
        "a": draining.comparisons,
        "b": latency.comparisons,
        "c": commits.comparisons,
        "d": creating.comparisons,
        "e": backlog.comparisons,
        "f": side_by_side.comparisons,
    },
)


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
