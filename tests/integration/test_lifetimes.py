"""bulksafe holds references no longer than Django does."""

import gc
import threading
import weakref

import pytest
from django.apps import apps
from django.db import connection, connections, models, transaction
from django.db.migrations import Migration
from django.db.migrations.operations import RunPython
from django.db.migrations.state import ProjectState
from django.db.models.signals import post_save, pre_save
from django.test.utils import isolate_apps

import bulksafe
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
)

pytestmark = pytest.mark.django_db

NAME = "bulksafe lifetimes"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"


@pytest.fixture
def sessions():
    """Counts the sessions that the test's threads have on the server."""
    # The connection that counts has no such name.
    connection.ensure_connection()
    options = connection.settings_dict["OPTIONS"]
    connection.settings_dict["OPTIONS"] = {**options, "application_name": NAME}

    def count():
        with connection.cursor() as cursor:
            cursor.execute(SESSIONS, [NAME])
            return cursor.fetchone()[0]

    yield count
    connection.settings_dict["OPTIONS"] = options


def ask():
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")


def write():
    Article.objects.create(title="one")
    Article.objects.bulk_create([Article(title="two"), Article(title="three")])
    Article.objects.update(title="four")
    Article.objects.all().delete()


def write_with_context():
    with bulksafe.context(user=1):
        write()


def leave_a_transaction_open():
    """A thread that ends in the middle of one."""
    connections["default"].set_autocommit(False)
    with bulksafe.context(user=1):
        Article.objects.create(title="one")


@pytest.mark.parametrize("work", [ask, write, write_with_context, leave_a_transaction_open])
@pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")
def test_the_connection_of_a_thread_is_freed_with_it(sessions, work):
    inline.critical(pre_save, Article)
    inline.critical(post_save, Article)
    failed = []

    def run():
        try:
            work()
        except BaseException as error:
            failed.append(error)

    for _ in range(5):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    gc.collect()

    assert failed == []
    # A session takes a moment to end.
    for _ in range(10_000):
        if sessions() == 0:
            break
    assert sessions() == 0


def test_a_closed_connection_of_the_driver_is_freed():
    inline.critical(pre_save, Article)
    inline.critical(post_save, Article)
    drivers = []
    for _ in range(3):
        write_with_context()
        drivers.append(weakref.ref(connection.connection))
        connection.close()
    gc.collect()

    assert [driver() for driver in drivers] == [None] * 3


def test_the_models_of_a_migration_are_freed():
    inline.critical(pre_save, Article)
    inline.critical(post_save, Article)
    found = []

    def work(historical, schema_editor):
        article = historical.get_model("practice", "CriticalArticle")
        book = historical.get_model("practice", "CriticalBook")
        invoice = historical.get_model("invoices", "Invoice")
        found.extend(map(weakref.ref, (historical, article, book, invoice)))
        row = article.objects.create(title="one")
        row.title = "two"
        row.save()
        row.validate_constraints()
        article.objects.bulk_create([article(title="three")])
        article.objects.bulk_update([row], ["title"])
        article.objects.update(title="four")
        row.delete()
        article.objects.all().delete()
        invoice.objects.create(amount=1)
        with transaction.atomic():
            invoice.objects.bulk_create([invoice(amount=2)])
            invoice.objects.update(amount=3)
            invoice.objects.all().delete()
        list(book.objects.all())

    def migrate():
        state = ProjectState.from_apps(apps)
        migration = Migration("0001_work", "practice")
        migration.operations = [RunPython(work)]
        with connection.schema_editor() as editor:
            migration.apply(state, editor)

    migrate()
    # A deletion leaves the models in a cache of Django's own until it is cleared.
    apps.clear_cache()
    gc.collect()

    assert [one() for one in found] == [None] * 4


def test_a_model_class_that_a_test_makes_is_freed():
    with inline.reception.only_these():
        made = weakref.ref(_made_and_written())
    gc.collect()

    assert made() is None


def _made_and_written():
    with isolate_apps("tests.apps.practice"):

        class Passing(models.Model):
            title = models.CharField(max_length=20)

            class Meta:
                app_label = "practice"
                triggers = [
                    bulksafe.Immutable("title"),
                    bulksafe.Check(~models.Q(title=""), name="x"),
                ]

        for trigger in Passing._meta.triggers:
            trigger.compile(Passing)
        Passing(title="one").full_clean()
    return Passing


@pytest.mark.parametrize("is_refused", [False, True])
def test_instances_and_pending_rows_are_freed(is_refused):
    class RefusedError(Exception):
        pass

    def look(sender, instance, old, changed, context, **kwargs):
        if is_refused and instance.title == "refused":
            raise RefusedError

    inline.critical(pre_save, Article, look)
    inline.critical(post_save, Article, look, dispatch_uid="after")
    found = []

    def make(title):
        made = Article(title=title)
        found.append(weakref.ref(made))
        return made

    def run():
        make("one").save()
        Article.objects.bulk_create([make("two"), make("three")])
        for work in (
            lambda: make("refused").save(),
            lambda: Article.objects.bulk_create([make("four"), make("refused")]),
            lambda: Article.objects.update(title="refused"),
        ):
            try:
                work()
            except RefusedError:
                assert is_refused

    run()
    gc.collect()

    assert [one() for one in found] == [None] * 6
