"""The command line: ``python -m tests.django_suite``."""

import argparse
import platform
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import django
import psycopg
from rich.console import Console

from examples import server
from tests.django_suite import database, labels, reporting, source
from tests.django_suite.comparing import differences, rows
from tests.django_suite.errors import SuiteError
from tests.django_suite.inherent import BETTER, INHERENT, INHERENT_OF_RECEIVERS
from tests.django_suite.running import PLAIN, RECEIVERS, Suite, run_suite

_GROUP = 10

#: What unittest makes a test of that it cannot load.
_NOT_FOUND = "unittest.loader."

EXAMPLES = """\
examples:
  python -m tests.django_suite                              some minutes: what bulksafe touches
  python -m tests.django_suite --only bulk_create,update    two parts of the suite
  python -m tests.django_suite --only update.tests.SimpleTest.test_empty_update
  python -m tests.django_suite --receivers                  each model has a receiver
  python -m tests.django_suite --all                        all of it: half an hour and more
  python -m tests.django_suite --postgres system --keep     the outcomes and logs stay in build/
  DATABASE_URL=postgresql://… python -m tests.django_suite  on a server of yours

The first run downloads the source of the Django that is installed, with pip, into build/. The
databases are called test_django and test_django_other, and are dropped.

exit status:
  0  each test has the same outcome without bulksafe and with it, or its difference is explained
  1  some do not
  2  it could not be found out
"""


def main(arguments=None):
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        return run(options, console)
    except (SuiteError, server.ServerError, psycopg.Error) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
    except KeyboardInterrupt:
        Console(stderr=True).print("error: stopped", style="red")
    return 2


def parser():
    found = argparse.ArgumentParser(
        prog="python -m tests.django_suite",
        description="Run Django's own test suite on PostgreSQL twice, without bulksafe and with "
        "it, and compare what became of each test.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = found.add_mutually_exclusive_group()
    which.add_argument(
        "--only",
        type=lambda text: [label.strip() for label in text.split(",") if label.strip()],
        metavar="LABEL,LABEL",
        help="parts of the suite, or tests by their dotted names",
    )
    which.add_argument("--all", action="store_true", help="every part of the suite")
    found.add_argument(
        "--receivers",
        nargs="?",
        choices=list(RECEIVERS),
        const="rows",
        help="let each model have a receiver of post_save and post_delete that does nothing: an "
        "ordinary one without bulksafe, with it a critical one, which has the arguments of "
        "Django's signals (instances) or asks for the old row, too (rows, the default)",
    )
    found.add_argument(
        "--postgres",
        choices=["embedded", "system"],
        default="embedded",
        help="which server to start, unless DATABASE_URL names one (default: embedded)",
    )
    found.add_argument(
        "--parallel", type=_positive, default=2, metavar="N", help="processes (default: 2)"
    )
    found.add_argument(
        "--keep", action="store_true", help="keep what the runs write in build/django_suite/runs"
    )
    return found


def run(options, console):
    tests = source.tests_directory()
    pair = RECEIVERS[options.receivers] if options.receivers else PLAIN
    with database.running(options.postgres) as postgres, _directory(options.keep) as directory:
        chosen = _chosen(options, tests, postgres, console)
        console.print(_environment(postgres), style="dim")
        groups = _groups(chosen) if options.receivers else [chosen]
        suite = Suite(tests, groups, postgres.url, directory, options.parallel)
        before, after = (_outcomes(suite, one, console) for one in pair)
    if not before or any(test.startswith(_NOT_FOUND) for test in before):
        raise SuiteError("Some of the tests do not exist, or cannot be imported.")
    if options.receivers:
        found = differences(before, after, INHERENT | INHERENT_OF_RECEIVERS, BETTER)
    else:
        found = differences(before, after, INHERENT)
    console.print(reporting.as_table(rows(before, after, found), *(one.name for one in pair)))
    return reporting.report(found, len(before), console)


def _chosen(options, tests, postgres, console):
    """What runtests.py is to run; what the server cannot run is named and left out."""
    available = source.labels_in(tests)
    default = available if options.all else labels.default_labels(available)
    chosen = options.only or default
    unknown = [label for label in chosen if label.split(".")[0] not in available]
    if unknown:
        raise SuiteError(f"Django {django.__version__} has no tests {', '.join(unknown)}.")
    refused = labels.without_extensions(chosen, database.missing_extensions(postgres.url))
    for label, lacking in refused.items():
        console.print(f"{label} is left out: the server has no {', '.join(lacking)}.")
    if len(refused) == len(chosen):
        raise SuiteError("Nothing is left to run.")
    return [label for label in chosen if label not in refused]


def _groups(chosen):
    """Some labels at a time: it takes a while to check receivers of a thousand models."""
    return [chosen[start : start + _GROUP] for start in range(0, len(chosen), _GROUP)]


def _environment(postgres):
    return (
        f"Django {django.__version__}, PostgreSQL {postgres.version}, "
        f"psycopg {psycopg.__version__}, Python {platform.python_version()}"
    )


@contextmanager
def _directory(is_kept):
    if not is_kept:
        with tempfile.TemporaryDirectory(prefix="django-suite-") as directory:
            yield Path(directory)
        return
    runs = source.CACHE / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    yield runs


def _outcomes(suite, run, console):
    started = time.monotonic()
    with console.status(run.name) as status:
        outcomes = run_suite(suite, run, lambda n: status.update(f"{run.name}: {n} tests so far"))
    seconds = time.monotonic() - started
    console.print(f"{run.name}: {len(outcomes)} tests in {seconds:.0f} s", style="dim")
    return outcomes


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
