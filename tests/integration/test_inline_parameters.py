"""What receivers assign is stored as an assignment would store it, however much it is.

The server takes 65,535 parameters of one statement.
"""

from __future__ import annotations

import pytest
from django.db import DataError, OperationalError, connections, models
from django.db.models.signals import pre_save

from tests.apps.edges.models import Pair
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import alias
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
    execute,
)
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db(transaction=True)

MOST = 65_535


@pytest.fixture
def using(clean):  # noqa: F811
    """A connection whose statements have their parameters beside them."""
    with alias("server side", OPTIONS={"server_side_binding": True}) as name:
        yield name


def test_the_server_takes_no_more(using):
    """Without this, the tests below would test nothing."""
    with (
        connections[using].cursor() as cursor,
        pytest.raises(OperationalError, match="must be between 0"),
    ):
        cursor.execute(f"SELECT {', '.join(['%s'] * (MOST + 1))}", [1] * (MOST + 1))


def test_what_receivers_assign_to_many_rows(using):
    count = MOST // 3 + 1  # two columns of the key, and the note

    def assign(instance, **kwargs):
        instance.note = "assigned"

    execute(
        f"INSERT INTO {Pair._meta.db_table} (first, second, note) SELECT n, n, '' "
        f"FROM generate_series(1, {count}) AS n"
    )
    inline.critical(pre_save, Pair, assign)
    assert Pair.objects.using(using).update(note="updated") == count

    assert Pair.objects.filter(note="assigned").count() == count


@pytest.fixture
def wide(using):
    """A model of a hundred columns beside its key."""
    columns = {f"c{number}": models.IntegerField(null=True) for number in range(100)}
    with isolated(), tables(model := declare(class_name="Broad", **columns)):
        yield model
        connections[using].close()


def test_what_receivers_assign_to_rows_of_many_columns(using, wide):
    count, table = 1500, wide._meta.db_table

    def assign(instance, **kwargs):
        for number in range(100):
            setattr(instance, f"c{number}", 1)

    execute(f"INSERT INTO {table} (c0) SELECT 0 FROM generate_series(1, {count})")
    inline.critical(pre_save, wide, assign)
    assert wide.objects.using(using).update(c0=2) == count

    found = execute(f"SELECT count(*), sum(c0), sum(c99) FROM {table}")
    assert found == [(count, count, count)]


def test_text_that_is_too_long_for_its_column_is_refused(clean):  # noqa: F811
    """A cast to the column's type would cut it, where an assignment is an error."""
    Article.objects.create(title="a")

    def assign(instance, **kwargs):
        instance.title = "x" * 81

    inline.critical(pre_save, Article, assign)
    with pytest.raises(DataError, match="too long"):
        Article.objects.update(total=1)

    assert Article.objects.values_list("title", "total").get() == ("a", 0)
