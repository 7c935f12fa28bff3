"""The tests of this directory run without a server, and would fail with one."""

import subprocess
import sys

import psycopg
import pytest
from django.db import connection


def test_a_connection_is_refused():
    with pytest.raises(pytest.fail.Exception, match="opens a connection"):
        psycopg.connect("")


def test_one_of_djangos_too():
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        connection.ensure_connection()


def test_a_process_finds_no_server():
    code = "import psycopg; psycopg.connect('')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "/tests/unit/has/no/server" in done.stderr
