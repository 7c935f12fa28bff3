"""The driver's connection, as a receiver that runs before the write sees it."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models.signals import pre_save

from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline

pytestmark = pytest.mark.django_db


@pytest.fixture
def kept(db):
    """The driver's connection that a receiver has kept during an update()."""
    found = []
    with inline.only_these():
        Article.objects.create(title="a")
        inline.critical(pre_save, Article, lambda **kwargs: found.append(connection.connection))
        Article.objects.update(total=1)
        yield found[0]


def test_it_is_the_drivers_again_after_the_write(kept):
    assert type(connection.connection) is psycopg.Connection
    assert isinstance(kept, psycopg.Connection)


def test_one_that_a_receiver_has_kept_can_be_used_after_the_write(kept):
    """The write stands, and nothing may roll it back."""
    assert kept.execute("SELECT total FROM practice_criticalarticle").fetchall() == [(1,)]
    assert Article.objects.get().total == 1


def test_one_that_a_receiver_has_kept_takes_back_no_later_write(kept):
    with transaction.atomic():
        Article.objects.update(total=2)
        kept.execute("SELECT 1")

    assert Article.objects.get().total == 2
