"""The command line: ``python -m benchmarks.sessions``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import django
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.options import add_server, positive, sections_of

SECTIONS = {
    "a": "(a) serialization failures of writers on disjoint rows, at SERIALIZABLE",
    "b": "(b) other sessions while one transaction makes many saves",
    "c": "(c) memory of one statement for many rows",
}

EXAMPLES = """\
examples:
  python -m benchmarks.sessions                     everything: some minutes
  python -m benchmarks.sessions --only a --writers 16 --transactions 75
  python -m benchmarks.sessions --only c --rows 1_000_000

Close what else uses the CPU.

exit status: 0 measured, 1 receivers add failures in (a) or more than 200 MiB in (c), 2 error
"""

#: What receivers may add to the memory of a process, in MiB.
MOST_MEMORY = 200
#: What the throughput in (b) should be beside that with plain signals.
LEAST_RATIO = 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.sessions.settings"
    django.setup()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        return int(not _run(options, console))
    except (psycopg.Error, RuntimeError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return 2


def parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {title}" for title in SECTIONS.values())
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.sessions",
        description="Measure what critical receivers do to other sessions and to memory, beside "
        f"Django's signals.\n\nsections:\n{listed}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "--only",
        type=sections_of(SECTIONS),
        default=list(SECTIONS),
        metavar="a,b",
        help="these sections (default: all)",
    )
    found.add_argument("--writers", type=positive, default=8, help="of (a) and (b) (default: 8)")
    found.add_argument(
        "--transactions", type=positive, default=150, help="of each writer of (a) (default: 150)"
    )
    found.add_argument("--saves", type=positive, default=1_000, help="of (b) (default: 1,000)")
    found.add_argument(
        "--seconds", type=positive, default=5, help="of each measurement of (b) (default: 5)"
    )
    found.add_argument("--rows", type=positive, default=200_000, help="of (c) (default: 200,000)")
    add_server(found)
    return found


def _run(options: argparse.Namespace, console: Console) -> bool:
    """Measure and print. Returns whether the aims were reached; (b) has a goal only."""
    # Here, because the settings are chosen before.
    from benchmarks.database import QUEUE_OPTIONS, fresh_database, migrate  # noqa: PLC0415
    from benchmarks.reporting import describe, environment  # noqa: PLC0415

    reached = True
    with fresh_database(options.postgres, QUEUE_OPTIONS):
        console.print(*describe(environment()), sep="\n", style="dim", highlight=False)
        migrate()
        for section in options.only:
            table, is_reached = _MEASURES[section](options)
            console.print(table)
            reached = reached and is_reached
    return reached


def _contention(options: argparse.Namespace) -> tuple[Table, bool]:
    from benchmarks.sessions import contention  # noqa: PLC0415

    found = contention.measure(options.writers, options.transactions)
    rows = [(one.kind, one.deed, one.transactions, one.plain, one.critical) for one in found]
    headings = "receivers", "write", "transactions", "failures, plain", "failures, critical"
    return _table("a", headings, rows), all(one.critical <= one.plain for one in found)


def _subtransactions(options: argparse.Namespace) -> tuple[Table, bool]:
    from benchmarks.sessions import subtransactions  # noqa: PLC0415

    found = subtransactions.measure(options.writers, options.saves, options.seconds)
    rows = [
        [one.kind, *(f"{n:,.0f}" for n in (one.idle, one.plain, one.critical)), f"{one.ratio:.2f}"]
        for one in found
    ]
    headings = "receivers", "idle", "plain", "critical", f"ratio (goal: {LEAST_RATIO})"
    return _table("b", headings, rows), True


def _memory(options: argparse.Namespace) -> tuple[Table, bool]:
    from benchmarks.sessions import memory  # noqa: PLC0415

    found = memory.measure(options.rows)
    rows = [
        [
            one.title,
            *(f"{n:.0f}" for n in (one.plain.memory, one.critical.memory, one.added)),
            *(f"{n:.1f}" for n in (one.plain.seconds, one.critical.seconds)),
        ]
        for one in found
    ]
    headings = "write", "MiB, plain", "MiB, critical", "added", "s, plain", "s, critical"
    return _table("c", headings, rows), all(one.added <= MOST_MEMORY for one in found)


_MEASURES = {"a": _contention, "b": _subtransactions, "c": _memory}


def _table(section: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=SECTIONS[section], title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row))
    return table


if __name__ == "__main__":
    sys.exit(main())
