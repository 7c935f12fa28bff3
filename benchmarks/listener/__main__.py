"""The command line: ``python -m benchmarks.listener``."""

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

from benchmarks.listener.plan import FULL, QUICK, SECTIONS, Plan
from benchmarks.options import measure, sectioned_parser

EXAMPLES = """\
examples:
  python -m benchmarks.listener                       everything: about 25 minutes
  python -m benchmarks.listener --quick               a first look, in less than a minute
  python -m benchmarks.listener --only a,b            some sections only
  python -m benchmarks.listener --json results.json   all figures, for a machine
  DATABASE_URL=postgresql://… python -m benchmarks.listener --only c
                                                      on a server of yours, in a database of its own

Close what else uses the CPU. Each section measures one thing twice, to show how far apart the same
thing is on this machine. Libraries that are missing are skipped: pip install 'bulksafe[bench]'.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever was reached, and 2 when it was not."""
    options = parser().parse_args(arguments)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.listener.settings"
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
        "python -m benchmarks.listener",
        "Measure the listener: how fast and how soon receivers are called, beside "
        "procrastinate, pgqueuer and django-pgpubsub, and what capturing costs the writers.",
        EXAMPLES,
        SECTIONS,
        f"rounds, but one of (e) (default: {FULL.rounds}, with --quick {QUICK.rounds})",
    )


def plan_of(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    return replace(plan, rounds=options.rounds or plan.rounds)


def run(options: argparse.Namespace, console: Console) -> None:
    # Here, because the settings are chosen before.
    from benchmarks.database import QUEUE_OPTIONS, fresh_database, migrate  # noqa: PLC0415
    from benchmarks.listener import reporting  # noqa: PLC0415
    from benchmarks.results import Results  # noqa: PLC0415

    plan = plan_of(options)
    results = Results()
    with fresh_database(options.postgres, QUEUE_OPTIONS) as server:
        about = reporting.about()
        console.print(*reporting.lines(about), sep="\n", style="dim", highlight=False)
        migrate()
        for section in chosen(options.only, plan, results, server):
            rounds = 1 if section.section == "e" else plan.rounds
            measure(section, SECTIONS[section.section], rounds, console)
    if options.json:
        reporting.REPORT.write_json(options.json, about, results)
    if options.markdown:
        reporting.REPORT.write_markdown(options.markdown, reporting.lines(about), results)
    for grid in reporting.REPORT.grids(results):
        console.print(grid.as_rich())


def chosen(only: Sequence[str], plan: Plan, results: Any, server: Any) -> list[Any]:
    """The sections to measure, made ready."""
    from benchmarks.listener.backlog import Backlog  # noqa: PLC0415
    from benchmarks.listener.commits import Commits  # noqa: PLC0415
    from benchmarks.listener.creating import Creating  # noqa: PLC0415
    from benchmarks.listener.draining import Draining  # noqa: PLC0415
    from benchmarks.listener.latency import Latency  # noqa: PLC0415
    from benchmarks.listener.pgbench import Pgbench  # noqa: PLC0415
    from benchmarks.listener.side_by_side import SideBySide  # noqa: PLC0415

    pgbench = Pgbench(server)
    makers = {
        "a": lambda: Draining(plan, results),
        "b": lambda: Latency(plan, results),
        "c": lambda: Commits(plan, results, pgbench),
        "d": lambda: Creating(plan, results),
        "e": lambda: Backlog(plan, results, pgbench),
        "f": lambda: SideBySide(plan, results),
    }
    return [makers[section]() for section in only]


if __name__ == "__main__":
    sys.exit(main())
