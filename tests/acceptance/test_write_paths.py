"""The write-path matrix: every path does what ``save()`` with signal receivers does on the twin."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import Model
from django.test import Client

import bulksafe
from bulksafe.declarations import label_of
from examples import server
from tests.acceptance import data_changes, twin_tables
from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.acceptance.data_changes import BYSTANDER, COMPUTED, Change, Kind
from tests.acceptance.write_paths import PATHS, Path, SqlRefusal, Write
from tests.apps.twins import receivers
from tests.apps.twins.models import TWINS, Document, Folder, FolderTwin, Memo, Parcel, Shelf

CELLS = [(path, change) for path in PATHS for change in path.changes()]


pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def browser(committed) -> Iterator[Client]:  # noqa: F811
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


def refusal_of_the_twin(path: Path, change: Change) -> str | None:
    """Do the change row by row; the name of the rule that refuses it."""
    try:
        with receivers.whole_transaction():
            twin_tables.write_per_row(TWINS[path.model], path.steps(change))
    except receivers.RefusedError as refused:
        return str(refused)
    return None


def check_refusal(path: Path, kind: Kind, error: Exception) -> None:
    """The error names the invariant, in the way of the client that got it."""
    carrier = Document if path.model is Memo else path.model
    invariant = next(t for t in carrier._meta.triggers if t.name == kind.rule)
    # Rows lie in partitions. It is the second row that is refused, and that one has a low key.
    table = "twins_parcel_low" if path.model is Parcel else carrier._meta.db_table
    if path.in_django:
        assert isinstance(error, bulksafe.InvariantViolation)
        assert error.invariant == label_of(carrier, invariant)
        error = error.__cause__
    if isinstance(error, psycopg.Error):
        error = SqlRefusal(error.sqlstate, error.diag.table_name, error.diag.constraint_name)
    assert isinstance(error, SqlRefusal)
    assert error.args == ("23514", table, kind.rule)


def check_instances(instances: Any, model: type[Model]) -> None:
    """What the path leaves in the caller's hands has the stored computed values, or none."""
    stored = {row["key"]: row for row in twin_tables.snapshot(model)}
    for instance in instances or ():
        for name in COMPUTED:
            known = {stored[instance.key][name], None if instance.pk is None else ...}
            assert getattr(instance, name) in known


def perform(path: Path, write: Write) -> Any:
    """Write; several statements are one transaction, a single one is its own."""
    with transaction.atomic() if path.many_statements else nullcontext():
        return path.run(write)


def check_cell(path: Path, change: Change, write: Write) -> None:
    """The path does what the twin does."""
    bystander = data_changes.stored_row(key=BYSTANDER)
    twin_tables.fill(path.model, [*write.change.before, bystander])
    before = twin_tables.snapshot(path.model)
    assert before == twin_tables.snapshot(TWINS[path.model])
    rule = refusal_of_the_twin(path, write.change)
    assert rule == (change.kind.rule if change.refused else None)

    if rule:
        with pytest.raises((bulksafe.InvariantViolation, psycopg.Error, SqlRefusal)) as caught:
            perform(path, write)
        check_refusal(path, change.kind, caught.value)
        assert twin_tables.snapshot(path.model) == before
    else:
        check_instances(perform(path, write), path.model)
        assert twin_tables.snapshot(path.model) != before
    assert twin_tables.snapshot(path.model) == twin_tables.snapshot(TWINS[path.model])


@pytest.mark.parametrize(("path", "change"), CELLS, ids=str)
def test_write_path(path, change, write):
    check_cell(path, change, write(path, change))
