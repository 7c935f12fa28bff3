"""Threads, asynchronous code and asynchronous views."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django import test
from django.db import (
    connection,
    connections,
    transaction,
)
from django.db.models import F
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_save,
)
from django.http import HttpResponse
from django.urls import path

import bulksafe
from bulksafe import testing
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import in_threads, refuse
from tests.integration.inline_committed import (
    execute,
    insert,
    raw,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class TestThreads:
    def test_each_has_its_own_connection(self, clean):
        seen = []

        def look(instance, **kwargs):
            seen.append((threading.current_thread(), connection.connection, instance.title))

        inline.critical(post_save, Article, look)

        def work(number):
            for step in range(5):
                Article.objects.bulk_create([Article(title=f"{number} {step}")])
                with transaction.atomic():
                    raw().execute(insert(f"{number} {step} raw"))

        in_threads(4, work)

        expected = [f"{n} {s}{raw}" for n in range(4) for s in range(5) for raw in ("", " raw")]
        assert sorted(title for *_, title in seen) == sorted(expected) == titles()
        for number in range(4):
            own = {(thread, driver) for thread, driver, title in seen if title[0] == str(number)}
            assert len(own) == 1

    def test_updates_of_one_row(self, clean):
        """Staged updates lock the row, so that none is lost."""
        article = Article.objects.create(title="there")

        def count(instance, **kwargs):
            instance.changes += 1

        inline.critical(pre_save, Article, count)
        in_threads(
            4,
            lambda number: [
                Article.objects.filter(pk=article.pk).update(total=F("total") + 1) for _ in range(5)
            ],
        )

        article.refresh_from_db()
        assert (article.total, article.changes) == (20, 20)

    def test_muting_is_a_thread_s_own(self, clean):
        calls = inline.critical(post_save, Article, dispatch_uid="mute me")

        def work(number):
            with testing.muted("mute me") if number else nullcontext():
                Article.objects.bulk_create([Article(title=str(number))])

        in_threads(3, work)

        assert [call["instance"].title for call in calls] == ["0"]
        assert titles() == ["0", "1", "2"]


async def write_asynchronously():
    article = await Article.objects.acreate(title="created")
    await Article.objects.abulk_create([Article(title="bulk")])
    article.title = "saved"
    await article.asave()
    await Article.objects.filter(title="bulk").aupdate(title="updated")
    await Article.objects.abulk_update([article], ["title"])
    await sync_to_async(execute)(insert("raw"))
    await article.adelete()


WRITTEN_ASYNCHRONOUSLY = ["created", "bulk", "saved", "updated", "saved", "raw", "saved"]


async def view(request):
    with bulksafe.context(view=True):
        await write_asynchronously()
    return HttpResponse("done")


def refusing_view(request):
    Article.objects.bulk_create([Article(title="a")])
    return HttpResponse("never")


urlpatterns = [path("write/", view), path("refused/", refusing_view)]


class TestAsync:
    @pytest.fixture
    def seen(self, clean):
        found = []

        def look(instance, context, **kwargs):
            found.append((instance.title, context))

        inline.critical([post_save, post_delete], Article, look)
        return found

    @pytest.mark.parametrize("run", [lambda f: async_to_sync(f)(), lambda f: asyncio.run(f())])
    def test_django_s_own_methods(self, run, seen):
        async def work():
            try:
                await write_asynchronously()
            finally:
                await sync_to_async(connections.close_all)()

        run(work)

        assert [title for title, _ in seen] == WRITTEN_ASYNCHRONOUSLY

    def test_tasks_at_the_same_time(self, seen):
        async def one(number):
            with bulksafe.context(number=number):
                await Article.objects.abulk_create([Article(title=str(number))])

        async def all_of_them():
            await asyncio.gather(*map(one, range(5)))

        async_to_sync(all_of_them)()

        assert sorted(seen, key=str) == [(str(n), {"number": n}) for n in range(5)]

    def test_atomic_in_a_function(self, seen):
        @sync_to_async
        def work():
            with transaction.atomic():
                Article.objects.create(title="a")
                raw().execute(insert("b"))

        async_to_sync(work)()

        assert [title for title, _ in seen] == ["a", "b"]

    def test_an_asynchronous_receiver_of_another_signal_is_unaffected(self, seen):
        async def receive(**kwargs):
            received.append(kwargs["instance"].title)

        received: list[str] = []
        post_save.connect(receive, sender=Article)
        try:
            async_to_sync(write_asynchronously)()
        finally:
            post_save.disconnect(receive, sender=Article)

        assert [title for title, _ in seen] == WRITTEN_ASYNCHRONOUSLY
        assert received == ["created", "saved"]

    def test_a_view_through_the_client(self, seen):
        with test.override_settings(ROOT_URLCONF=__name__):
            response = async_to_sync(test.AsyncClient().get)("/write/")

        assert response.content == b"done"
        assert seen == [(title, {"view": True}) for title in WRITTEN_ASYNCHRONOUSLY]

    @pytest.mark.parametrize("atomic_requests", [False, True])
    def test_a_view_whose_write_is_refused(self, atomic_requests, clean):
        inline.critical(post_save, Article, refuse)
        connection.settings_dict["ATOMIC_REQUESTS"] = atomic_requests
        try:
            with (
                test.override_settings(ROOT_URLCONF=__name__),
                pytest.raises(ValueError, match="no"),
            ):
                test.Client().get("/refused/")
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = False

        assert titles() == []
