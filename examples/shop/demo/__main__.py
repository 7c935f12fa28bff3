"""The command behind ``make demo``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import django
from django.conf import settings
from django.db import DatabaseError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples import server
from examples.shop.demo.paths import PATHS

if TYPE_CHECKING:
    from examples.shop.demo.matrix import Cell
    from examples.shop.demo.report import Results

HELD, BROKEN, ERROR, INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = """\
Show the shop's rules against every way to write to the database: first where they are signal
receivers, then where they are bulksafe invariants. Every cell of the tables is a real write and a
query that counts what it left behind. Nothing of the writes is kept.

The database is DATABASE_URL, or a PostgreSQL that is started for the demo and keeps its data in
.postgres/, where manage.py finds it afterwards.
"""

_EPILOG = """\
examples:
  make demo                                      everything
  make demo ARGS="--only copy --only psql"       two of the write paths
  make demo ARGS="--rows 5000 --orders 50000"    more rows
  make demo ARGS="--json" | jq .summary          for a machine
  NO_COLOR=1 make demo | less                    for a pager

exit status: 0 every rule held with bulksafe, 1 something slipped through, 2 the demo could not run
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rows * 10 > options.orders:
        parser.error(f"--rows {options.rows} needs --orders {options.rows * 10} or more")
    errors = Console(stderr=True)
    try:
        _set_up_django()
        _fill_database(options, errors)
        results = _try_all(options, errors)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (server.ServerError, UnsuitableDatabaseError) as error:
        errors.print(str(error), style="bold red", markup=False)
        return ERROR
    return _report(results, options)


class UnsuitableDatabaseError(Exception):
    """The database cannot be used for the demo."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.shop.demo",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=_positive, default=1_000, help="how many rows each write writes (1000)")
    add("--orders", type=_positive, default=10_000, help="how many orders the shop has (10000)")
    add(
        "--only",
        action="append",
        metavar="PATH",
        choices=[path.name for path in PATHS],
        help="this write path; may be repeated: " + ", ".join(path.name for path in PATHS),
    )
    add("--replace", action="store_true", help="replace what the shop in DATABASE_URL holds")
    add("--json", action="store_true", help="print the results as JSON")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _set_up_django() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "examples.shop.settings"
    django.setup()
    settings.DEBUG = False  # Django would keep the text of every statement.
    # executemany() uses a pipeline, and psycopg warns of one that ends in an error. Here it shall.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def _fill_database(options: argparse.Namespace, errors: Console) -> None:
    from examples.shop import data  # noqa: PLC0415  (models need the settings)
    from examples.shop.demo import database  # noqa: PLC0415

    size = data.Size(options.orders // 5 or 1, options.orders // 20 or 1, options.orders)
    with _progress(errors) as progress:
        task = progress.add_task("Loading both shops", total=2 * size.rows)
        try:
            database.prepare(size, options.replace, lambda rows: progress.advance(task, rows))
        except database.NotEmptyError as error:
            raise UnsuitableDatabaseError(
                f"{error} The demo replaces them if called with --replace."
            ) from error
        except DatabaseError as error:
            raise UnsuitableDatabaseError(f"The database cannot be set up: {error}") from error
        progress.update(task, total=progress.tasks[0].completed)


def _try_all(options: argparse.Namespace, errors: Console) -> Results:
    from examples.shop import models  # noqa: PLC0415
    from examples.shop.demo import database, matrix  # noqa: PLC0415
    from examples.shop.demo.report import Results  # noqa: PLC0415
    from examples.shop_signals import models as twin  # noqa: PLC0415

    paths = [path for path in PATHS if not options.only or path.name in options.only]
    with _progress(errors) as progress:
        task = progress.add_task("Trying to break the rules", total=matrix.size(paths) * 2)

        def half(shop: ModuleType) -> list[Cell]:
            return matrix.fill(shop, paths, options.rows, lambda: progress.advance(task))

        return Results(
            postgresql=database.server_version(),
            django=django.get_version(),
            size=options.rows,
            rows=database.rows(),
            paths=paths,
            without=half(twin),
            with_=half(models),
        )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _report(results: Results, options: argparse.Namespace) -> int:
    from examples.shop.demo.report import show  # noqa: PLC0415

    if options.json:
        print(json.dumps(results.as_json(), indent=2))
    else:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        show(results, Console())
    return BROKEN if results.problems else HELD


if __name__ == "__main__":
    sys.exit(main())
