"""The command line: ``python -m benchmarks.listener``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import django
import psycopg
from rich.console import Console

from benchmarks.__main__ import _positive, _writable
from benchmarks.listener.plan import FULL, QUICK, Plan
from benchmarks.listener.results import SECTIONS

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
    listed = "\n".join(f"  {title}" for title in SECTIONS.values())
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.listener",
        description="Measure the listener: how fast and how soon receivers are called, beside "
        "procrastinate, pgqueuer and django-pgpubsub, and what capturing costs the writers.\n\n"
        f"sections:\n{listed}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--quick", action="store_true", help="small sizes, one round")
    found.add_argument(
        "--only",
        type=_sections,
        default=list(SECTIONS),
        metavar="a,b",
        help="these sections (default: all)",
    )
    found.add_argument(
        "--rounds",
        type=_positive,
        metavar="N",
        help=f"rounds, but one of (e) (default: {FULL.rounds}, with --quick {QUICK.rounds})",
    )
    found.add_argument(
        "--json", type=_writable, metavar="FILE", help="also write all figures there"
    )
    found.add_argument(
        "--markdown", type=_writable, metavar="FILE", help="also write the tables there"
    )
    found.add_argument(
        "--postgres",
        choices=["embedded", "system"],
        default="embedded",
        help="which server to start, unless DATABASE_URL names one (default: embedded)",
    )
    return found


def plan_of(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    return replace(plan, rounds=options.rounds or plan.rounds)


def run(options: argparse.Namespace, console: Console) -> None:
    # Here, because the settings are chosen before.
    from benchmarks.database import fresh_database  # noqa: PLC0415
    from benchmarks.listener import database, reporting  # noqa: PLC0415
    from benchmarks.listener.results import Results  # noqa: PLC0415

    plan = plan_of(options)
    results = Results()
    with fresh_database(options.postgres, database.SERVER_OPTIONS) as server:
        about = reporting.about()
        console.print(*reporting.lines(about), sep="\n", style="dim", highlight=False)
        database.migrate()
        for section in chosen(options.only, plan, results, server):
            rounds = 1 if section.section == "e" else plan.rounds
            for number in range(rounds):
                with console.status("") as status:
                    start = monotonic()
                    section.round(number, lambda text, s=status: s.update(text))
                console.print(
                    f"{SECTIONS[section.section]}: round {number + 1} of {rounds} took "
                    f"{monotonic() - start:.1f} s",
                    style="dim",
                    highlight=False,
                )
    if options.json:
        reporting.write_json(options.json, about, results)
    if options.markdown:
        reporting.write_markdown(options.markdown, about, results)
    for grid in reporting.grids(results):
        console.print(grid.as_rich())


def chosen(only: Sequence[str], plan: Plan, results: Any, server: Any) -> list[Any]:
    """The sections to measure, made ready."""
    from benchmarks.listener.backlog import Backlog  # noqa: PLC0415
    from benchmarks.listener.commits import Commits  # noqa: PLC0415
    from benchmarks.listener.creating import Creating  # noqa: PLC0415
    from benchmarks.listener.draining import Draining  # noqa: PLC0415
    from benchmarks.listener.latency import Latency  # noqa: PLC0415
    from benchmarks.listener.pgbench import Pgbench  # noqa: PLC0415

    pgbench = Pgbench(server)
    makers = {
        "a": lambda: Draining(plan, results),
        "b": lambda: Latency(plan, results),
        "c": lambda: Commits(plan, results, pgbench),
        "d": lambda: Creating(plan, results),
        "e": lambda: Backlog(plan, results, pgbench),
    }
    return [makers[section]() for section in only]


def _sections(text: str) -> list[str]:
    found = sorted({part.strip() for part in text.split(",") if part.strip()})
    unknown = [part for part in found if part not in SECTIONS]
    if unknown or not found:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is no section: take some of {', '.join(SECTIONS)}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
