"""The command behind ``make demo``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.db import DatabaseError
from rich.console import Console

from examples import server
from examples.shop.demo import bars
from examples.shop.demo.errors import DemoError
from examples.shop.demo.paths import PATHS, WritePath

if TYPE_CHECKING:
    from types import ModuleType

    from examples.shop.demo.delivery import Delivery
    from examples.shop.demo.matrix import Cell
    from examples.shop.demo.refunding import Refunding
    from examples.shop.demo.report import Results

HELD, BROKEN, ERROR, INTERRUPTED = 0, 1, 2, 130
RULES, RECEIVERS, TRANSACTION = "rules", "receivers", "transaction"
PARTS = [RULES, RECEIVERS, TRANSACTION]

_FEWEST_EVENTS = 400
#: How many rows each write path writes for the receivers, and for those in the transaction.
_DELIVERED = 200
_REFUNDED = 50

_DESCRIPTION = """\
Show the shop's rules against every way to write to the database: first where they are signal
receivers, then where they are bulksafe invariants. Every cell of the tables is a real write and a
query that counts what it left behind.

Then show which of these writes run a receiver: one of Django, and a critical one in the listener.
The listener is a real process. It is killed while it works, started again, and what its receivers
did is counted.

Then let receivers run in the writer's transaction, where they can refuse and change what is
written: the same functions connected to Django's signals and as critical receivers. Nothing of the
writes is kept.

The database is DATABASE_URL, or a PostgreSQL that is started for the demo and keeps its data in
.postgres/, where manage.py finds it afterwards.
"""

_EPILOG = """\
examples:
  make demo                                      everything
  make demo ARGS="--only copy --only psql"       two of the write paths
  make demo ARGS="--rows 5000 --orders 50000"    more rows
  make demo ARGS="--part rules"                  the rules only
  make demo ARGS="--part receivers"              the receivers only
  make demo ARGS="--part transaction"            receivers in the writer's transaction only
  make demo ARGS="--events 20000"                more work for the listener that is killed
  make demo ARGS="--json" | jq .summary          for a machine
  NO_COLOR=1 make demo | less                    for a pager

exit status: 0 every rule held with bulksafe, no event was lost or done twice, and no critical
receiver was skipped; 1 something slipped through; 2 the demo could not run
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rows * 10 > options.orders:
        parser.error(f"--rows {options.rows} needs --orders {options.rows * 10} or more")
    if options.events < _FEWEST_EVENTS:
        parser.error(f"--events {options.events} is too few to be killed among: {_FEWEST_EVENTS}")
    errors = Console(stderr=True)
    output = None if options.json else _output()
    try:
        errors.print(f"{'Using' if 'DATABASE_URL' in os.environ else 'Starting'} PostgreSQL")
        _set_up_django()
        _fill_database(options, errors)
        results = _try_all(options, output, errors)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (server.ServerError, DemoError) as error:
        errors.print(str(error), style="bold red", markup=False)
        return ERROR
    return _end(results, output)


class UnsuitableDatabaseError(DemoError):
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
    add("--part", choices=PARTS, help="this part of the demo; all of them without it")
    add(
        "--events",
        type=_positive,
        default=3_000,
        help="how many events the listener has that is killed (3000)",
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
    # What the twin's receiver says where there is no warehouse.
    logging.getLogger("shop").setLevel(logging.WARNING)


def _fill_database(options: argparse.Namespace, errors: Console) -> None:
    from examples.shop import data  # noqa: PLC0415  (models need the settings)
    from examples.shop.demo import database  # noqa: PLC0415

    size = data.Size(options.orders // 5 or 1, options.orders // 20 or 1, options.orders)
    with bars.progress(errors) as progress:
        task = progress.add_task("Creating the tables, loading both shops", total=2 * size.rows)
        try:
            database.prepare(size, options.replace, lambda rows: progress.advance(task, rows))
        except database.NotEmptyError as error:
            raise UnsuitableDatabaseError(
                f"{error} The demo replaces them if called with --replace."
            ) from error
        except DatabaseError as error:
            raise UnsuitableDatabaseError(f"The database cannot be set up: {error}") from error
        progress.update(task, total=progress.tasks[0].completed)


def _try_all(options: argparse.Namespace, output: Console | None, errors: Console) -> Results:
    """Take each step, and show on ``output`` what it has found out before the next one begins."""
    from examples.shop.demo import database  # noqa: PLC0415
    from examples.shop.demo.report import Results, show_step  # noqa: PLC0415

    results = Results(
        postgresql=database.server_version(),
        django=django.get_version(),
        size=options.rows,
        rows=database.rows(),
        paths=[path for path in PATHS if not options.only or path.name in options.only],
    )
    for part in [options.part] if options.part else PARTS:
        for step, take in _STEPS[part].items():
            results = replace(results, **{step: take(options, results.paths, errors)})
            if output:
                show_step(step, results, output)
    return results


def _without(
    options: argparse.Namespace, paths: Sequence[WritePath], errors: Console
) -> list[Cell]:
    from examples.shop_signals import models as twin  # noqa: PLC0415

    return _rules(twin, "without", options, paths, errors)


def _with(options: argparse.Namespace, paths: Sequence[WritePath], errors: Console) -> list[Cell]:
    from examples.shop import models  # noqa: PLC0415

    return _rules(models, "with", options, paths, errors)


def _rules(
    shop: ModuleType,
    word: str,
    options: argparse.Namespace,
    paths: Sequence[WritePath],
    errors: Console,
) -> list[Cell]:
    from examples.shop.demo import matrix  # noqa: PLC0415

    with bars.progress(errors) as progress:
        task = progress.add_task(f"Breaking the rules {word} bulksafe", total=matrix.size(paths))
        return matrix.fill(shop, paths, options.rows, lambda: progress.advance(task))


def _receivers(
    options: argparse.Namespace, paths: Sequence[WritePath], errors: Console
) -> Delivery:
    from examples.shop.demo import delivery  # noqa: PLC0415

    only = options.only or ()
    with bars.stages(errors, delivery.stages(only), "Receivers after the commit") as stages:
        return delivery.run(only, min(options.rows, _DELIVERED), options.events, stages)


def _transaction(
    options: argparse.Namespace, paths: Sequence[WritePath], errors: Console
) -> Refunding:
    from examples.shop.demo import refunding  # noqa: PLC0415

    chosen = refunding.chosen(options.only or ())
    if options.part and not chosen:
        names = ", ".join(path.name for path in refunding.chosen(()))
        raise DemoError(f"This part of the demo has the write paths {names}.")
    with bars.stages(errors, len(chosen), "Receivers in the transaction") as stages:
        return refunding.refund(chosen, min(options.rows, _REFUNDED), stages)


#: The steps of each part: what each finds out is that attribute of the results.
_STEPS: dict[str, dict[str, Callable[..., Any]]] = {
    RULES: {"without": _without, "with_": _with},
    RECEIVERS: {"delivery": _receivers},
    TRANSACTION: {"refunding": _transaction},
}


def _output() -> Console:
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    return Console()


def _end(results: Results, output: Console | None) -> int:
    from examples.shop.demo.report import show_result  # noqa: PLC0415

    if output:
        show_result(results, output)
    else:
        print(json.dumps(results.as_json(), indent=2))
    return BROKEN if results.problems else HELD


if __name__ == "__main__":
    sys.exit(main())
