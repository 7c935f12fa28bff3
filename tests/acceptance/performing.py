"""Trying a write path: the rows that are there before, and what a path asks for.

``browser``, ``psql`` and ``write`` are fixtures: import all three into the test module.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.test import Client

from examples import server
from tests.acceptance import data_changes, twin_tables
from tests.acceptance.data_changes import BYSTANDER, Change
from tests.acceptance.write_paths import Path, SqlRefusal, Write


@pytest.fixture(scope="module")
def browser(committed) -> Iterator[Client]:
    user = User.objects.create_superuser("clerk")
    client = Client()
    client.force_login(user)
    yield client
    user.delete()
    Session.objects.all().delete()


_VERBOSE = re.compile(
    r"ERROR: +(?P<sqlstate>\w{5}): .*^TABLE NAME: +(?P<table>\S+)$.*"
    r"^CONSTRAINT NAME: +(?P<constraint>\S+)$",
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture(scope="module")
def psql(postgres) -> Callable[[str], None]:
    """Runs a script in a psql process; what the server refuses is raised."""
    url = server.database_url(connection.settings_dict)
    options = ["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]

    def run(script: str) -> None:
        done = subprocess.run(
            [postgres.bin / "psql", *options, url, "-f", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            match = _VERBOSE.search(done.stderr)
            assert match, done.stderr
            raise SqlRefusal(**match.groupdict())

    return run


@pytest.fixture
def write(request) -> Callable[[Path, Change], Write]:
    """Makes a ``Write`` with what its path asks for."""

    def make(path: Path, change: Change) -> Write:
        psql = request.getfixturevalue("psql") if path.connects else None
        browser = request.getfixturevalue("browser") if "Admin" in path.title else None
        return Write(path.model, path.prepare(change), psql, browser)

    return make


def fill(path: Path, change: Change) -> None:
    """Both twins as they are before the change."""
    bystander = data_changes.stored_row(key=BYSTANDER)
    twin_tables.fill(path.model, [*change.before, bystander])


def perform(path: Path, write: Write) -> Any:
    """Write; several statements are one transaction, a single one is its own."""
    with transaction.atomic() if path.many_statements else nullcontext():
        return path.run(write)
