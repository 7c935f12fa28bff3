"""The command line: ``python -m tests.neighbours``."""

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
from tests.django_suite import reporting
from tests.django_suite.comparing import rows
from tests.django_suite.errors import SuiteError
from tests.neighbours import environment
from tests.neighbours.known import KNOWN
from tests.neighbours.packages import PACKAGES
from tests.neighbours.running import Setting, compare, run_tests, runs_of, write_project

DESCRIPTION = """\
Install Wagtail and django-simple-history from PyPI. Declare every receiver that they connect to a
model signal critical, in an app of its own. Run a part of their tests twice: without bulksafe, and
with the critical receivers. Compare the outcome of each test, and what other packages see of the
project.
"""

EXAMPLES = """\
examples:
  python -m tests.neighbours                            both packages: some minutes
  python -m tests.neighbours --package simple-history   one of them
  python -m tests.neighbours --folder /var/tmp/n --keep
  DATABASE_URL=postgresql://… python -m tests.neighbours  on a server of yours

The first run installs the packages, with pip, into a virtual environment in the folder. The test
databases are called test_neighbours_…, and are dropped.

exit status:
  0  each test has the same outcome in both runs, or its difference is explained
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
        prog="python -m tests.neighbours",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "--package",
        choices=[*PACKAGES, "all"],
        default="all",
        help="whose tests are run (default: all)",
    )
    found.add_argument(
        "--postgres",
        choices=["embedded", "system"],
        default="embedded",
        help="which server to start, unless DATABASE_URL names one (default: embedded)",
    )
    found.add_argument(
        "--folder",
        type=lambda text: Path(text).absolute(),
        default=environment.DEFAULT_FOLDER,
        metavar="PATH",
        help="where the virtual environment and the sources are kept (default: build/neighbours)",
    )
    found.add_argument(
        "--keep",
        action="store_true",
        help="keep the projects, outcomes and logs in the folder, under “runs”",
    )
    return found


def run(options, console):
    chosen = [PACKAGES[name] for name in PACKAGES if options.package in {name, "all"}]
    with _step(console, "installing the packages"):
        python = environment.python_in(options.folder)
        sources = {one.name: environment.source_of(one, options.folder) for one in chosen}
    postgres = server.start(options.postgres, options=server.THROWAWAY)
    try:
        console.print(_environment(postgres), style="dim")
        with _directory(options) as directory:
            results = [
                _run_package(
                    Setting(
                        package,
                        python,
                        sources[package.name],
                        postgres.url,
                        directory / package.name,
                        package.processes,
                    ),
                    console,
                )
                for package in chosen
            ]
    finally:
        postgres.stop()
    return max(results)


def _run_package(setting, console):
    """Run and compare; return the exit status."""
    package = setting.package
    console.print(f"{package.distribution} {package.version}", style="bold")
    with _step(console, "makemigrations"):
        tables = write_project(setting)
    console.print(f"{tables} tables have a capture trigger", style="dim")
    pair = runs_of(package)
    before, after = (_outcomes(setting, one, console) for one in pair)
    found = compare(setting, before, after, KNOWN[package.name])
    names = (one.name for one in pair)
    table = rows(before, after, found, package.depth)
    console.print(reporting.as_table(table, *names, title=f"Tests of {package.distribution}"))
    return reporting.report(found, len(before), console)


def _step(console, name):
    """Show what takes a while: as a line in a log, as a spinner in a terminal."""
    if not console.is_terminal:
        console.print(f"{name} …")
    return console.status(name)


def _outcomes(setting, run, console):
    started = time.monotonic()
    with _step(console, run.name) as status:
        outcomes = run_tests(setting, run, lambda n: status.update(f"{run.name}: {n} so far"))
    seconds = time.monotonic() - started
    console.print(f"{run.name}: {len(outcomes)} tests in {seconds:.0f} s", style="dim")
    return outcomes


def _environment(postgres):
    return (
        f"Django {django.__version__}, PostgreSQL {postgres.version}, "
        f"Python {platform.python_version()}"
    )


@contextmanager
def _directory(options):
    if options.keep:
        yield options.folder / "runs"
        return
    with tempfile.TemporaryDirectory(prefix="neighbours-") as directory:
        yield Path(directory)


if __name__ == "__main__":
    sys.exit(main())
