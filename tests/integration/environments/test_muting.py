"""Receivers that are disconnected or muted."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from django.db import (
    connection,
    transaction,
)
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from bulksafe import testing
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import (
    EVERY,
    EVERY_SIGNAL,
    SAVING,
    perhaps_atomic,
    recreate_article,
    saving_ways,
    some_ways,
)
from tests.integration.inline_committed import (
    insert,
    raw,
    waiting,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@contextmanager
def mute_signals(*signals):
    """What factory_boy's function of this name does."""
    paused = {}
    for signal in signals:
        paused[signal] = signal.receivers
        signal.receivers = []
    try:
        yield
    finally:
        for signal, receivers in paused.items():
            signal.receivers = receivers + signal.receivers
            with signal.lock:
                signal.sender_receivers_cache.clear()


def _update_all():
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Article._meta.db_table} SET version = 6")


SAVED = {"pre": pre_save, "post": post_save}

#: Writes of articles with the titles a, b, c and d.
_OF_SEVERAL_ROWS = {
    "bulk_create()": lambda: Article.objects.bulk_create(Article(title=t) for t in "abcd"),
    "bulk_update()": lambda: Article.objects.bulk_update(
        list(Article.objects.order_by("pk")), ["title"]
    ),
    "update()": lambda: Article.objects.update(version=5),
    "SQL": _update_all,
}


class TestMuting:
    @pytest.fixture
    def calls(self, article):
        found = []

        def receiver(instance, signal, **kwargs):
            found.append((instance.title, signal))

        self.receiver = receiver
        inline.critical(EVERY_SIGNAL, Article, receiver, dispatch_uid="mute me")
        found.clear()
        return found

    def check(self, way, muted, calls, count=2):
        """Nothing is called inside the block, nor refused, and all is as before it afterwards."""
        for is_atomic in (False, True):
            with muted:
                recreate_article("default")
                assert calls == []
                with perhaps_atomic(is_atomic):
                    EVERY[way]("default")
                with transaction.atomic():
                    raw().execute(insert("raw"))
            assert calls == []
            assert waiting() == (0, 0)
            with muted:
                recreate_article("default")
            EVERY[way]("default")
            assert len(calls) == count
            calls.clear()

    @some_ways
    def test_bulksafe_s_own(self, way, calls):
        class Muted:
            def __enter__(self):
                names = ("pre_save", "post_save", "pre_delete", "post_delete")
                self.block = testing.muted(*(f"mute me.{name}" for name in names))
                self.block.__enter__()

            def __exit__(self, *error):
                self.block.__exit__(*error)

        self.check(way, Muted(), calls)

    @some_ways
    def test_factory_boy_s(self, way, calls):
        class Muted:
            def __enter__(self):
                self.block = mute_signals(*EVERY_SIGNAL)
                self.block.__enter__()

            def __exit__(self, *error):
                self.block.__exit__(*error)

        self.check(way, Muted(), calls)

    @some_ways
    @pytest.mark.parametrize("by", ["uid", "function"])
    def test_disconnect_and_connect(self, way, by, calls):
        """Connected again, even as an ordinary receiver is, it is critical again."""
        receiver = self.receiver

        class Muted:
            def __enter__(self):
                for signal in EVERY_SIGNAL:
                    assert signal.disconnect(sender=Article, dispatch_uid="mute me")
                    assert not signal.has_listeners(Article)

            def __exit__(self, *error):
                for signal in EVERY_SIGNAL:
                    if by == "uid":
                        signal.connect(receiver, sender=Article, dispatch_uid="mute me")
                    else:
                        signal.connect(receiver, sender=Article)
                    assert signal.has_listeners(Article)

        self.check(way, Muted(), calls)

    @some_ways
    def test_disconnect_a_function_without_a_name(self, way, article):
        found = []

        def receiver(instance, **kwargs):
            found.append(instance.title)

        inline.critical(EVERY_SIGNAL, Article, receiver, dispatch_uid=None)
        for signal in EVERY_SIGNAL:
            assert signal.disconnect(receiver, sender=Article)
        EVERY[way]("default")

        assert found == []

    def test_one_of_several_receivers(self, calls):
        others = inline.critical(post_save, Article, dispatch_uid="another")
        with testing.muted("mute me.post_save"):
            Article.objects.update(title="a")

        assert len(others) == 1
        assert [signal for _, signal in calls] == [pre_save]

    def test_a_receiver_of_another_sender_is_not_disconnected(self, calls):
        assert not post_save.disconnect(self.receiver, sender=Shelf, dispatch_uid="mute me")
        assert not post_save.disconnect(self.receiver, dispatch_uid="mute me")
        Article.objects.update(title="a")

        assert len(calls) == 2

    def test_psql_is_refused_all_the_same(self, psql, calls):
        """Disconnecting a receiver here does not affect other processes."""
        post_save.disconnect(sender=Article, dispatch_uid="mute me")

        assert psql(insert()).returncode == 3

    @some_ways
    def test_a_receiver_that_disconnects_itself(self, way, article):
        seen = []

        def once(**kwargs):
            seen.append(kwargs)
            for signal in EVERY_SIGNAL:
                signal.disconnect(sender=Article, dispatch_uid="once")

        inline.critical(EVERY_SIGNAL, Article, once, dispatch_uid="once")
        EVERY[way]("default")

        assert len(seen) == 1

    @pytest.mark.parametrize("way", [*_OF_SEVERAL_ROWS, "delete()"])
    @pytest.mark.parametrize("when", ["pre", "post"])
    @pytest.mark.parametrize("options", [{}, {"row_by_row": True}], ids=["", "row by row"])
    @pytest.mark.parametrize("is_looking", [False, True], ids=["", "looking"])
    def test_receivers_that_disconnect_each_other(self, way, when, options, is_looking):
        """Of several rows: as with Django's send(), it counts from the next row."""
        is_deletion = way == "delete()"
        signals = {"pre": pre_delete, "post": post_delete} if is_deletion else SAVED
        signal = signals[when]

        def called(connect, write):
            found = []

            def first(instance, **kwargs):
                found.append(("first", instance.title))
                if is_looking:
                    Article.objects.count()
                if len(found) > 2:
                    signal.disconnect(sender=Article, dispatch_uid="second")
                    signal.disconnect(sender=Article, dispatch_uid="first")

            def second(instance, **kwargs):
                found.append(("second", instance.title))

            for receiver in (first, second):
                connect(receiver, dispatch_uid=receiver.__name__)
            write()
            return found

        def critically(function, dispatch_uid):
            inline.critical(signal, Article, function, dispatch_uid=dispatch_uid, **options)

        def by_django(function, dispatch_uid):
            signal.connect(function, sender=Article, dispatch_uid=dispatch_uid)

        def of_each():
            for article in Article.objects.order_by("pk"):
                article.delete() if is_deletion else article.save()

        Article.objects.bulk_create(Article(title=title) for title in "abcd")
        expected = called(by_django, of_each)
        if is_deletion:
            Article.objects.bulk_create(Article(title=title) for title in "abcd")
        found = called(critically, _OF_SEVERAL_ROWS.get(way, Article.objects.all().delete))

        assert expected == [(name, title) for title in "ab" for name in ("first", "second")]
        # PostgreSQL updates rows in the order in which they lie.
        rows = "ab" if way.startswith("bulk") or is_deletion else [found[0][1], found[2][1]]
        assert found == [(name, title) for title in rows for name in ("first", "second")]

    def test_another_function_under_the_same_name(self, calls):
        """As a test puts a mock there."""
        mocked = []

        def mock(instance, **kwargs):
            mocked.append(instance.title)

        post_save.disconnect(sender=Article, dispatch_uid="mute me")
        post_save.connect(mock, sender=Article, dispatch_uid="mute me")
        Article.objects.create(title="a")
        post_save.disconnect(sender=Article, dispatch_uid="mute me")

        assert mocked == ["a"]
        assert [signal for _, signal in calls] == [pre_save]


def test_listeners_are_seen(clean):
    assert not post_save.has_listeners(Article)
    inline.critical(post_save, Article)

    assert post_save.has_listeners(Article)
    assert not post_save.has_listeners(Shelf)
    assert not pre_save.has_listeners(Article)


@saving_ways
def test_a_receiver_without_other_references_stays_connected(way, article):
    found = SimpleNamespace(count=0)

    def declare():
        class Holder:
            def receive(self, **kwargs):
                found.count += 1

        inline.critical(
            post_save, Article, lambda **kwargs: setattr(found, "count", found.count + 1)
        )
        inline.critical(post_save, Article, Holder().receive)

    declare()
    gc.collect()
    SAVING[way]("default")

    assert found.count == 2
