"""The command line: ``python -m benchmarks.inline``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import django
import psycopg
from rich.console import Console

from benchmarks.inline.plan import FULL, QUICK, SECTIONS, Plan
from benchmarks.options import measure, sectioned_parser

EXAMPLES = """\
examples:
  python -m benchmarks.inline                       everything: 10 to 25 minutes
  python -m benchmarks.inline --quick               a first look, in less than a minute
  python -m benchmarks.inline --only a,b            some sections only
  python -m benchmarks.inline --only d --rounds 31  one section, less noise
  python -m benchmarks.inline --json results.json   all figures, for a machine
  DATABASE_URL=postgresql://… python -m benchmarks.inline
                                                    on a server of yours, in a database of its own

Close what else uses the CPU. Each section measures one thing twice, to show how far apart the same
thing is on this machine.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever was reached, and 2 when it was not."""
    options = parser().parse_args(arguments)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.inline.settings"
    django.setup()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        run(options, console)
    except (psycopg.Error, RuntimeError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    return sectioned_parser(
        "python -m benchmarks.inline",
        "Measure critical receivers in the writer's transaction, beside Django's signals and "
        "beside what one writes by hand.",
        EXAMPLES,
        SECTIONS,
        f"rounds (default: {FULL.rounds}, with --quick {QUICK.rounds})",
    )


def plan_of(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    return replace(plan, rounds=options.rounds or plan.rounds)


def run(options: argparse.Namespace, console: Console) -> None:
    # Here, because the settings are chosen before.
    from benchmarks.database import (  # noqa: PLC0415
        QUEUE_OPTIONS,
        checkpoint,
        fresh_database,
        migrate,
    )
    from benchmarks.inline import proof  # noqa: PLC0415
    from benchmarks.inline.reporting import REPORT  # noqa: PLC0415
    from benchmarks.reporting import describe, environment  # noqa: PLC0415
    from benchmarks.results import Results  # noqa: PLC0415

    plan = plan_of(options)
    results = Results()
    with fresh_database(options.postgres, QUEUE_OPTIONS):
        about = environment()
        console.print(*describe(about), sep="\n", style="dim", highlight=False)
        migrate()
        proof.prove()
        console.print("Each receiver was seen to refuse bad rows on each path that is its own.")
        for section in chosen(options.only, plan, results):
            checkpoint()
            measure(section, SECTIONS[section.section], plan.rounds, console)
    if options.json:
        REPORT.write_json(options.json, about, results)
    if options.markdown:
        REPORT.write_markdown(options.markdown, describe(about), results)
    for grid in REPORT.grids(results):
        console.print(grid.as_rich())


def chosen(only: Sequence[str], plan: Plan, results: Any) -> list[Any]:
    """The sections to measure, made ready."""
    from benchmarks.inline.bulk import Bulk  # noqa: PLC0415
    from benchmarks.inline.deleting import Deleting  # noqa: PLC0415
    from benchmarks.inline.elsewhere import Statements  # noqa: PLC0415
    from benchmarks.inline.in_turn import InTurn  # noqa: PLC0415
    from benchmarks.inline.single import Single  # noqa: PLC0415
    from benchmarks.inline.trips import Trips  # noqa: PLC0415

    makers = {
        "a": lambda: Bulk("a", plan, results),
        "b": lambda: Bulk("b", plan, results),
        "c": lambda: Single(plan, results),
        "d": lambda: Statements(plan, results),
        "e": lambda: Deleting(plan, results),
        "f": lambda: InTurn(plan, results),
        "g": lambda: Trips(plan, results),
    }
    return [makers[section]() for section in only]


if __name__ == "__main__":
    sys.exit(main())
