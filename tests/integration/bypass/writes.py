"""Writes that bypass Django's wrappers, and the refusal that they end in."""

from __future__ import annotations

import re

from django.db import connection

from examples import server
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration.inline_committed import (
    ARTICLES,
    TICKET,
    execute,
    insert,
)

SHELVES = Shelf._meta.db_table


def stored() -> list[tuple]:
    return execute(f"SELECT id, title FROM {ARTICLES} ORDER BY id")


def check_words(message, detail, hint, change="INSERT", receiver="warehouse.post_save"):
    """A refusal names the table and the receiver, and says what to do."""
    assert change in message
    assert ARTICLES in message
    assert receiver in message
    assert "written past it" in detail
    assert "Write through Django" in hint
    assert 'otherwise="after_commit"' in hint


def check_refusal(error, **words):
    """The driver's error."""
    assert error.sqlstate == "23000"
    assert error.diag.constraint_name == TICKET
    assert error.diag.table_name == ARTICLES
    check_words(
        error.diag.message_primary, error.diag.message_detail, error.diag.message_hint, **words
    )


_COLUMNS, _VALUES = re.match(r"INSERT INTO \w+ \((.*)\) VALUES \((.*)\)", insert("row")).groups()


def url(**options):
    return server.database_url(connection.settings_dict)


def seen(calls):
    """What the receivers were called for, in order."""
    return [call["instance"].title for call in calls]


def copied(title="copied"):
    return f"COPY {ARTICLES} ({_COLUMNS}) FROM STDIN (FORMAT csv, QUOTE '''')", _VALUES.replace(
        "'row'", f"'{title}'"
    )


def refuse(**kwargs):
    raise ValueError("no")
