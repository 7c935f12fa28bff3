"""What is collected and not made, and who may have writes collected."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection
from django.db.models.signals import pre_save

from examples.server import database_url
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    ARTICLES,
    _django_db_helper,
    clean,
    committed,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other(clean):  # noqa: F811
    """Another program's connection."""
    with psycopg.connect(database_url(connection.settings_dict)) as found:
        yield found
        found.rollback()


def collect(other, text):
    ((after,),) = other.execute("SELECT bulksafe_collect('collect')").fetchall()
    assert other.execute(text).rowcount == 0
    return other.execute("SELECT * FROM bulksafe_collected(%s)", [after]).fetchall()


def test_collected_rows_that_are_never_stored_cannot_be_committed(other):
    Article.objects.create(title="kept")
    inline.critical(pre_save, Article)
    assert collect(other, f"UPDATE {ARTICLES} SET title = 'lost'")

    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never made"):
        other.commit()
    assert Article.objects.get().title == "kept"


def test_nor_with_constraints_that_are_checked_at_once(other):
    Article.objects.create(title="kept")
    inline.critical(pre_save, Article)
    other.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert collect(other, f"UPDATE {ARTICLES} SET title = 'lost'")

    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="never made"):
        other.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_rolled_back_changes_are_forgotten(other):
    Article.objects.create(title="kept")
    inline.critical(pre_save, Article)
    other.execute("SAVEPOINT a")
    collect(other, f"UPDATE {ARTICLES} SET title = 'lost'")
    other.execute("ROLLBACK TO a")
    other.commit()

    assert Article.objects.get().title == "kept"


@pytest.mark.parametrize("mode", ["collect 1", "collect", "x"])
def test_a_mode_that_was_set_by_hand_collects_nothing(mode, other):
    Article.objects.create(title="kept")
    inline.critical(pre_save, Article)
    other.execute("SELECT set_config('bulksafe.stage', %s, false)", [mode])

    assert other.execute(f"UPDATE {ARTICLES} SET title = 'x'").rowcount == 1


PLACES = [
    "''",
    "' (0,1)'",
    # The tickets of the first UPDATE.
    "' ' || current_setting('bulksafe.waiting')",
    "' ' || split_part(current_setting('bulksafe.waiting'), ' ', 1)",
]


@pytest.mark.parametrize("place", PLACES)
def test_nor_does_one_of_the_transaction_itself(place, other):
    """Without a ticket of its own, the commit would not show that rows are missing."""
    Article.objects.create(title="kept")
    inline.critical(pre_save, Article)
    assert other.execute(f"UPDATE {ARTICLES} SET title = 'x'").rowcount == 1
    other.execute(
        "SELECT set_config("
        f"'bulksafe.stage', 'collect ' || pg_current_xact_id()::text || {place}, true)"
    )

    assert other.execute(f"UPDATE {ARTICLES} SET title = 'y'").rowcount == 1
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="have not run"):
        other.commit()


FORGED = ["bulksafe.deferred", "bulksafe.waiting", "bulksafe.staged", "bulksafe.tickets"]
TEXTS = ["''", "'all'", "'all (0,1)'", "'(0,1)'", "'x'", "pg_current_xact_id()::text"]


@pytest.mark.parametrize("setting", FORGED)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("moment", ["DEFERRED", "IMMEDIATE"])
def test_a_forged_setting_gets_nothing_past_the_receivers(setting, text, moment, other):
    Article.objects.create(title="kept")
    inline.critical(pre_save, Article)
    forge = f"SELECT set_config('{setting}', {text}, true)"
    update = f"UPDATE {ARTICLES} SET title = 'x'"
    steps = [f"SET CONSTRAINTS ALL {moment}", forge, update, forge, update, forge, "COMMIT"]

    def write():
        for step in steps:
            other.execute(step)

    with pytest.raises(psycopg.Error):
        write()
    other.rollback()

    assert Article.objects.get().title == "kept"


def test_another_transaction_sees_nothing_of_it(other):
    Article.objects.create(title="secret")
    inline.critical(pre_save, Article)
    collect(other, f"UPDATE {ARTICLES} SET title = 'x'")
    other.execute("SAVEPOINT a")
    with psycopg.connect(database_url(connection.settings_dict), autocommit=True) as third:
        found = third.execute("SELECT * FROM bulksafe_collected(0)").fetchall()
        assert found == []
        (oid,) = third.execute("SELECT %s::regclass::oid", [ARTICLES]).fetchone()
        rows = third.execute("SELECT * FROM bulksafe_staged_rows(%s, 0, 1 << 40)", [oid])
        assert rows.fetchall() == []
