"""One PostgreSQL server for the whole run, named in the header.

``BULKSAFE_TEST_POSTGRES=embedded`` (the default) or ``system`` chooses which is started;
``DATABASE_URL`` names one that is there already.
"""

import os
import platform
import subprocess

import django
import psycopg
import pytest
from django.conf import settings
from django.db import connections

from examples import server

POSTGRES = pytest.StashKey[server.Server]()


def pytest_configure(config):
    started = server.start(
        os.environ.get("BULKSAFE_TEST_POSTGRES", "embedded"),
        options={**server.THROWAWAY, "max_prepared_transactions": "4"},
    )
    config.stash[POSTGRES] = started
    found = server.database_settings(started.url)
    for alias in ("default", "other"):
        # In place: Django's connections hold on to these very dictionaries.
        settings.DATABASES[alias].update(found)


def pytest_unconfigure(config):
    if POSTGRES in config.stash:
        connections.close_all()
        config.stash[POSTGRES].stop()


def pytest_report_header(config):
    return (
        f"PostgreSQL {config.stash[POSTGRES].version}, Django {django.__version__}, "
        f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), Python {platform.python_version()}"
    )


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
