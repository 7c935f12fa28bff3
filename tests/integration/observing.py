"""Helpers for tests of observed rules: what is recorded, and other sessions."""

from contextlib import contextmanager

import psycopg
from django.db import connection

from examples import server
from tests.unit.declaring import registered, tables


@contextmanager
def committed_table(model):
    """The model's table, which other sessions see."""
    with registered(model), tables(model):
        query("DELETE FROM bulksafe_violation")
        try:
            yield model
        finally:
            query("DELETE FROM bulksafe_violation")
            with connection.schema_editor() as editor:
                editor.delete_model(model)


def query(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description is not None else []


def records(columns="operation, key", invariant=None):
    """The records in the order of their time."""
    where = "WHERE invariant = %s" if invariant else ""
    parameters = [invariant] if invariant else []
    return query(f"SELECT {columns} FROM bulksafe_violation {where} ORDER BY at", *parameters)


def count():
    return query("SELECT count(*) FROM bulksafe_violation")[0][0]


@contextmanager
def session(role=None, isolation="READ COMMITTED"):
    """A session of another program, in a transaction, that waits for no lock."""
    url = server.database_url(connection.settings_dict)
    with psycopg.connect(url) as other:
        other.execute("SET lock_timeout = '1s'")
        if role:
            other.execute(f"SET SESSION AUTHORIZATION {role}")
        other.commit()
        other.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        yield other


@contextmanager
def limit(most):
    query("SELECT setval('bulksafe_violation_limit', %s)", most)
    try:
        yield
    finally:
        query("SELECT setval('bulksafe_violation_limit', 1000)")
