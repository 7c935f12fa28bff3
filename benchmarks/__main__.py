"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import django
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.options import add_files, add_server, positive
from benchmarks.variants import LARGE

DEFAULT_ROWS = [10_000, 1_000_000]
QUICK_ROWS = [1_000]
ROUNDS, LARGE_ROUNDS, QUICK_ROUNDS = 15, 3, 5

EXAMPLES = """\
examples:
  python -m benchmarks                              10,000 and 1,000,000 rows: about 15 minutes
  python -m benchmarks --quick                      a first look, in seconds
  python -m benchmarks --rows 10000 --rounds 31     one size, less noise
  python -m benchmarks --json results.json          all times, for a machine
  DATABASE_URL=postgresql://… python -m benchmarks  on a server of yours, in a database of its own

Close what else uses the CPU: the two measurements "no rules" and "no rules, again" show how far
apart the same thing is on this machine.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever was reached, and 2 when it was not."""
    options = parser().parse_args(arguments)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    django.setup()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        run(options, console)
    except (psycopg.Error, RuntimeError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what bulksafe's row invariants cost, beside the same table without "
        "rules, the same rules in hand-written triggers, and in signal receivers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = found.add_mutually_exclusive_group()
    size.add_argument(
        "--rows",
        type=_sizes,
        default=DEFAULT_ROWS,
        metavar="N,N",
        help="sizes of the table (default: 10000,1000000)",
    )
    size.add_argument("--quick", action="store_true", help="1,000 rows and few rounds")
    found.add_argument(
        "--rounds",
        type=positive,
        metavar="N",
        help=f"rounds for each size (default: {ROUNDS}, above 100,000 rows {LARGE_ROUNDS})",
    )
    add_files(found, "times")
    add_server(found)
    return found


def run(options: argparse.Namespace, console: Console) -> None:
    # Here, because the settings are chosen before.
    from benchmarks import database, measuring, proof, reporting  # noqa: PLC0415

    plan = measuring.Plan(rounds_of(options))
    with database.fresh_database(options.postgres):
        about = reporting.environment()
        console.print(*reporting.describe(about), sep="\n", style="dim", highlight=False)
        database.create_tables()
        kept = proof.prove()
        console.print(f"Each of {len(kept)} variants was seen to keep its rules.")
        with progress_bar(console) as bar:
            task = bar.add_task("", total=plan.work)
            timings = measuring.Measuring(
                lambda doing, written: bar.update(task, description=doing, advance=written),
                lambda text: console.print(text, style="dim"),
            ).run(plan)
    if options.json:
        reporting.write_json(options.json, about, kept, timings)
    if options.markdown:
        reporting.write_markdown(options.markdown, about, timings)
    for grid in reporting.grids(timings):
        console.print(grid.as_rich())


def rounds_of(options: argparse.Namespace) -> dict[int, int]:
    """The number of rounds for each number of rows."""
    if options.quick:
        return dict.fromkeys(QUICK_ROWS, options.rounds or QUICK_ROUNDS)
    return {
        rows: options.rounds or (LARGE_ROUNDS if rows > LARGE else ROUNDS) for rows in options.rows
    }


def progress_bar(console: Console) -> Progress:
    return Progress(
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
    )


def _sizes(text: str) -> list[int]:
    return sorted({positive(part) for part in text.split(",")})


if __name__ == "__main__":
    sys.exit(main())
