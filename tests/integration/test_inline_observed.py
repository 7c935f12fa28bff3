"""``otherwise="observe"``: writes that a receiver has missed are recorded, and committed."""

from __future__ import annotations

import json

import psycopg
import pytest
from django.db import connections, transaction
from django.db.models import Q
from django.db.models.signals import post_delete, post_save, pre_save

from bulksafe import testing
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    ARTICLES,
    _django_db_helper,
    clean,
    committed,
    execute,
    insert,
    raw,
    titles,
)
from tests.integration.observing import limit, records, session

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def write(psql):
    """Writes with psql, which has to succeed."""

    def run(script):
        connections.close_all()
        done = psql(script)
        assert done.returncode == 0, done.stderr

    return run


def observed(*, signal=post_save, uid="observed", **options):
    return inline.critical(signal, Article, otherwise="observe", dispatch_uid=uid, **options)


def outbox():
    return execute("SELECT count(*) FROM bulksafe_outbox")[0][0]


def missed():
    return [
        (name, operation, title)
        for name, operation, title in records(
            "invariant, operation, COALESCE(new, old) ->> 'title'"
        )
    ]


def test_a_missed_write_is_recorded_and_committed(write):
    calls = observed()
    write(f"{insert('a')}; UPDATE {ARTICLES} SET title = 'b'")

    assert calls == []
    assert titles() == ["b"]
    assert missed() == [("observed", "I", "a"), ("observed", "U", "b")]
    ((kind, source, old, new),) = records("kind, source::text, old, new", "observed")[1:]
    assert (kind, source) == ("receiver", ARTICLES)
    assert (json.loads(old)["title"], json.loads(new)["title"]) == ("a", "b")
    assert outbox() == 0
    assert testing.deliver() == 0


def test_a_write_through_django_calls_the_receiver_and_records_nothing():
    calls = observed()
    article = Article.objects.create(title="a")
    with transaction.atomic():
        Article.objects.update(title="b")
    article.delete()

    assert [call["instance"].title for call in calls] == ["a", "b"]
    assert missed() == []


def test_only_changes_that_meet_the_condition(write):
    observed(when=Q(new__title="a"))
    write(f"{insert('a')}; {insert('b')}")

    assert missed() == [("observed", "I", "a")]


def test_each_missed_receiver_has_a_record(write):
    observed(uid="one")
    observed(uid="two", when=Q(new__title="b"))
    observed(uid="gone", signal=post_delete)
    observed(uid="early", signal=pre_save)
    write(f"{insert('a')}; {insert('b')}; DELETE FROM {ARTICLES} WHERE title = 'b'")

    assert sorted(missed()) == [
        ("early", "I", "a"),
        ("early", "I", "b"),
        ("gone", "D", "b"),
        ("one", "I", "a"),
        ("one", "I", "b"),
        ("two", "I", "b"),
    ]


def test_a_receiver_that_refuses_still_refuses():
    observed()
    inline.critical(post_save, Article, dispatch_uid="refusing")

    with session() as other:
        other.execute(insert("a"))
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as caught:
            other.commit()
    assert "refusing" in str(caught.value)
    assert "observed" not in str(caught.value)
    assert (titles(), missed()) == ([], [])


def test_a_receiver_for_the_listener_gets_the_write(write):
    observed(uid="watched", when=Q(new__title="a"))
    calls = inline.critical(
        post_save,
        Article,
        otherwise="after_commit",
        dispatch_uid="handed",
        when=Q(new__title__in=["a", "b"]),
    )
    write(f"{insert('a')}; {insert('b')}; {insert('c')}")

    assert missed() == [("watched", "I", "a")]
    assert outbox() == 2
    testing.deliver()
    assert [call["instance"].title for call in calls] == ["a", "b"]


def test_the_limit_holds(write):
    observed()
    with limit(3):
        write(f"BEGIN; {'; '.join(insert(str(n)) for n in range(9))}; COMMIT")
    assert len(missed()) == 3


def test_a_rolled_back_write_leaves_no_record(write):
    observed()
    write(f"BEGIN; {insert('a')}; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK")

    assert (titles(), missed()) == ([], [])
