"""One PostgreSQL server for the whole run, named in the header or at its end.

``BULKSAFE_TEST_POSTGRES=embedded`` (the default) or ``system`` chooses which is started;
``DATABASE_URL`` names one that is there already. The tests in ``tests/unit`` need none: a run of
those alone starts none.
"""

import os
import platform
import signal
import subprocess
from pathlib import Path

import django
import psycopg
import pytest
from django.conf import settings
from django.db import connections
from django.test import TransactionTestCase

from examples import server
from tests import emptying, sampling

POSTGRES = pytest.StashKey[server.Server]()
VERSIONS = pytest.StashKey[set]()
UNIT = Path(__file__).with_name("unit")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path, parent):
    """Start the server before the first module that needs it is imported."""
    if UNIT not in module_path.parents:
        start(parent.config)


def start(config):
    if POSTGRES in config.stash:
        return
    started = server.start(
        os.environ.get("BULKSAFE_TEST_POSTGRES", "embedded"),
        options={**server.THROWAWAY, "max_prepared_transactions": "4"},
    )
    config.stash[POSTGRES] = started
    found = server.database_settings(started.url)
    for alias in ("default", "other"):
        # In place: Django's connections hold on to these very dictionaries.
        settings.DATABASES[alias].update(found)


def pytest_configure(config):
    # A shell makes its background jobs ignore SIGINT, and what tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    TransactionTestCase._fixture_teardown = emptying.empty_tables


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the golden files again")
    parser.addoption(
        "--sample",
        type=int,
        default=1,
        metavar="N",
        help="of a test of several parameters, one case in N, and each value at least once",
    )


def pytest_collection_modifyitems(config, items):
    items[:], left_out = sampling.split(items, config.getoption("sample"))
    config.hook.pytest_deselected(items=left_out)


def pytest_unconfigure(config):
    if POSTGRES in config.stash:
        connections.close_all()
        config.stash[POSTGRES].stop()


def pytest_report_header():
    return (
        f"Django {django.__version__}, psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), "
        f"Python {platform.python_version()}"
    )


def pytest_report_collectionfinish(config):
    return f"PostgreSQL {config.stash[POSTGRES].version}" if POSTGRES in config.stash else []


# With pytest-xdist the workers have the servers, and the controller prints.


def pytest_sessionfinish(session):
    if POSTGRES in session.config.stash and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["postgres"] = session.config.stash[POSTGRES].version


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    if "postgres" in getattr(node, "workeroutput", {}):
        node.config.stash.setdefault(VERSIONS, set()).add(node.workeroutput["postgres"])


def pytest_terminal_summary(terminalreporter, config):
    for version in sorted(config.stash.get(VERSIONS, ())):
        terminalreporter.write_line(f"PostgreSQL {version}")


@pytest.fixture(scope="session")
def postgres(request):
    """The server that the tests run on."""
    return request.config.stash[POSTGRES]


@pytest.fixture
def psql(transactional_db, postgres):
    """Run SQL in a psql process on a test database, as another program would.

    ``psql(sql, using="default", stdin=None)`` returns the ``CompletedProcess`` with its output as
    text, unaligned and without headers; its return code is 3 when a statement failed. It sees
    committed rows only, hence the transactional database. ``stdin`` is the data for ``COPY … FROM
    STDIN``.
    """

    def run(sql, using="default", stdin=None):
        url = server.database_url(connections[using].settings_dict)
        command = [str(postgres.bin / "psql"), "--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=1", url]
        command += ["-c", sql] if stdin is not None else ["-f", "-"]
        return subprocess.run(
            command,
            input=sql if stdin is None else stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run
