"""What ``connection.queries`` shows of a write with receivers: the statement that Django sent."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from tests.apps.mirrors.models import Novel, Ware, Work
from tests.integration import inline

pytestmark = pytest.mark.django_db

SIGNALS = {
    "pre_save": pre_save,
    "post_save": post_save,
    "pre_delete": pre_delete,
    "post_delete": post_delete,
}


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


def plain(instance, **kwargs):
    """It needs the instance only."""


def rows(instance, old=None, changed=None, **kwargs):
    """It needs the rows."""


def look(sender, **kwargs):
    """Its writes go row by row, and its own query is in the log, too."""
    sender.objects.count()


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)


WRITES = {
    "an update": lambda: Ware.objects.exclude(code="c").update(count=F("count") + 1),
    "an update of nothing": lambda: Ware.objects.filter(code="x").update(count=1),
    "an update to the same values": lambda: Ware.objects.update(count=F("count")),
    "raw SQL": lambda: execute("UPDATE mirrors_ware SET count = 5 WHERE code = %s", ["a"]),
    "raw SQL that returns": lambda: execute("UPDATE mirrors_ware SET count = 5 RETURNING code"),
    "a raw deletion": lambda: execute("DELETE FROM mirrors_ware WHERE code = %s", ["b"]),
    "an upsert": lambda: execute(
        "INSERT INTO mirrors_ware (code, name, count) VALUES ('a', '', 0), ('z', '', 0) "
        "ON CONFLICT (code) DO UPDATE SET count = 8"
    ),
    "a write in a query": lambda: execute(
        "WITH made AS (UPDATE mirrors_ware SET count = 4 RETURNING code) SELECT count(*) FROM made"
    ),
    "an update of a parent": lambda: Work.objects.update(count=F("count") + 1),
    "an update of a child": lambda: Novel.objects.update(pages=F("pages") + 1),
    "a save of a child": lambda: Novel.objects.get(pages=3).save(),
}


def logged(write):
    with CaptureQueriesContext(connection) as queries:
        write()
    return [query["sql"] for query in queries]


@pytest.mark.parametrize("receiver", [plain, rows, look])
@pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_log_is_the_one_without_receivers(write, signal, receiver):
    for code in "abc":
        Ware.objects.create(code=code)
    for pages in (3, 4):
        Novel.objects.create(pages=pages)
    with transaction.atomic():
        expected = logged(write)
        transaction.set_rollback(True)
    for model in (Ware, Work, Novel):
        inline.critical(signal, model, receiver)

    found = logged(write)

    assert None not in found
    assert [text for text in found if "COUNT(*)" not in text] == expected
