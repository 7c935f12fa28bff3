"""``otherwise="after_commit"``: other programs are let through, and the listener delivers."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connections, transaction
from django.db.models import Q
from django.db.models.signals import m2m_changed, post_delete, post_save

import bulksafe
from bulksafe import testing
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalTag as Tag
from tests.integration import inline_committed as inline
from tests.integration import reception
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
from tests.migration.conftest import databases, forge, project  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


def outbox():
    return execute("SELECT count(*) FROM bulksafe_outbox")[0][0]


def seen(calls):
    """What the receivers were called for, in order."""
    return [
        (
            call["instance"].title,
            call["old"] and call["old"].title,
            call.get("created"),
            sorted(call["changed"]),
        )
        for call in calls
    ]


NAMES = sorted(one.name for one in Article._meta.concrete_fields)


def new(title):
    return (title, None, True, NAMES)


def changed(before, after):
    return (after, before, False, ["title"])


@pytest.fixture
def write(psql):
    """Writes with psql, which has to succeed."""

    def run(script):
        connections.close_all()
        done = psql(script)
        assert done.returncode == 0, done.stderr

    return run


def otherwise(*, signal=post_save, sender=Article, **options):
    return inline.critical(signal, sender, otherwise="after_commit", **options)


def rename(before, after):
    return f"UPDATE {ARTICLES} SET title = '{after}' WHERE title = '{before}'"


class TestOfAnotherProgram:
    def test_each_change_once_with_what_it_changed(self, write):
        saved = otherwise(dispatch_uid="saved")
        deleted = otherwise(signal=post_delete, dispatch_uid="deleted")
        write(
            f"{insert('a')}; {insert('b')}; {rename('a', 'c')}; "
            f"DELETE FROM {ARTICLES} WHERE title = 'b'"
        )
        assert (saved, deleted) == ([], [])

        assert testing.deliver() == 4
        assert seen(saved) == [new("a"), new("b"), changed("a", "c")]
        assert [call["instance"].title for call in deleted] == ["b"]
        assert len({call["event_id"] for call in (*saved, *deleted)}) == 4
        assert all(call["using"] == "default" for call in saved)
        assert testing.deliver() == 0

    def test_in_one_transaction(self, write):
        calls = otherwise()
        write(
            f"BEGIN; {insert('a')}; {rename('a', 'b')}; SAVEPOINT s; {rename('b', 'x')}; "
            f"ROLLBACK TO s; {rename('b', 'c')}; COMMIT"
        )

        assert testing.deliver() == 3
        assert seen(calls) == [new("a"), changed("a", "b"), changed("b", "c")]

    def test_a_transaction_that_is_rolled_back(self, write):
        otherwise()
        write(f"BEGIN; {insert()}; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK")

        assert outbox() == 0
        assert testing.deliver() == 0

    def test_constraints_that_are_checked_at_once(self, write):
        calls = otherwise()
        write(
            f"BEGIN; SET CONSTRAINTS ALL IMMEDIATE; {insert('a')}; SET CONSTRAINTS ALL IMMEDIATE; "
            f"{rename('a', 'b')}; SAVEPOINT s; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO s; COMMIT"
        )

        assert testing.deliver() == 2
        assert seen(calls) == [new("a"), changed("a", "b")]

    def test_a_prepared_transaction(self, write):
        if execute("SHOW max_prepared_transactions") == [("0",)]:
            pytest.skip("the server has max_prepared_transactions = 0")
        calls = otherwise()
        write(f"BEGIN; {insert()}; PREPARE TRANSACTION 'otherwise'")
        assert testing.deliver() == 0
        write("COMMIT PREPARED 'otherwise'")

        assert testing.deliver() == 1
        assert seen(calls) == [new("raw")]

    def test_a_role_without_rights_on_bulksafe_s_tables(self, write):
        calls = otherwise()
        execute("CREATE ROLE otherwise_clerk")
        try:
            execute(f"GRANT INSERT ON {ARTICLES} TO otherwise_clerk")
            execute(f"GRANT USAGE ON SEQUENCE {ARTICLES}_id_seq TO otherwise_clerk")
            write(f"SET ROLE otherwise_clerk; {insert()}")
        finally:
            execute("DROP OWNED BY otherwise_clerk")
            execute("DROP ROLE otherwise_clerk")

        assert testing.deliver() == 1
        assert seen(calls) == [new("raw")]

    def test_a_batch(self, write):
        calls = otherwise(batch=True)
        write(f"BEGIN; {insert('a')}; {insert('b')}; COMMIT; {insert('c')}")

        assert testing.deliver() == 1
        (call,) = calls
        assert [instance.title for instance in call["instances"]] == ["a", "b", "c"]

    def test_links(self, write):
        through, table = Book.tags.through, Book.tags.through._meta.db_table
        calls = otherwise(signal=m2m_changed, sender=through)
        book = Book.objects.create(title="book")
        tags = [Tag.objects.create(name=name) for name in "ab"]
        values = ", ".join(f"({book.pk}, {tag.pk})" for tag in tags)
        write(f"INSERT INTO {table} (criticalbook_id, criticaltag_id) VALUES {values}")
        assert calls == []

        testing.deliver()
        (call,) = calls
        assert (call["action"], call["instance"]) == ("post_add", book)
        assert call["pk_set"] == {tag.pk for tag in tags}


class TestOfDjango:
    """Django's own writes run the receiver there and then, and not once more."""

    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_the_listener_has_nothing_to_do(self, is_atomic):
        calls = otherwise()
        deleted = otherwise(signal=post_delete, dispatch_uid="deleted")

        def write():
            Article.objects.create(title="a")
            Article.objects.bulk_create([Article(title="b")])
            Article.objects.filter(title="b").update(title="c")
            article = Article.objects.get(title="a")
            article.title = "d"
            Article.objects.bulk_update([article], ["title"])
            execute(rename("d", "e"))
            Article.objects.all().delete()

        if is_atomic:
            with transaction.atomic():
                write()
        else:
            write()

        expected = [new("a"), new("b"), changed("b", "c"), changed("a", "d"), changed("d", "e")]
        assert seen(calls) == expected
        assert sorted(call["instance"].title for call in deleted) == ["c", "e"]
        assert outbox() == 0
        assert testing.deliver() == 0
        assert inline.waiting() == (0, 0)

    def test_with_the_driver_in_atomic(self):
        calls = otherwise()
        with transaction.atomic():
            raw().execute(insert())

        assert seen(calls) == [new("raw")]
        assert (outbox(), testing.deliver()) == (0, 0)

    def test_with_the_driver_in_autocommit(self):
        """Each statement is a transaction of its own, like one of another program."""
        calls = otherwise()
        raw().execute(insert())
        raw().execute(rename("raw", "renamed"))
        assert calls == []

        assert testing.deliver() == 2
        assert seen(calls) == [new("raw"), changed("raw", "renamed")]

    def test_a_function_that_writes_in_autocommit(self):
        """Nothing refuses the write, so it is not repeated: the listener runs the receiver."""
        calls = otherwise()
        execute(f"CREATE FUNCTION pg_temp.write() RETURNS void LANGUAGE sql AS $$ {insert()} $$")
        execute("SELECT pg_temp.write()")
        assert titles() == ["raw"]

        assert len(calls) + testing.deliver() == 1
        assert seen(calls) == [new("raw")]

    def test_alternating_with_another_program_on_one_row(self, write):
        calls = otherwise()
        write(insert("1"))
        testing.deliver()
        Article.objects.update(title="2")
        write(rename("2", "3"))
        testing.deliver()
        article = Article.objects.get()
        article.title = "4"
        article.save()
        write(f"{rename('4', '5')}; {rename('5', '6')}")
        testing.deliver()
        execute(rename("6", "7"))

        assert seen(calls) == [new("1")] + [changed(f"{n}", f"{n + 1}") for n in range(1, 7)]
        assert testing.deliver() == 0

    def test_before_the_listener_reaches_the_writes_of_another_program(self, write):
        """The receiver runs late for that, once, and sees what was changed then."""
        calls = otherwise()
        write(f"{insert('1')}; {rename('1', '2')}")
        Article.objects.update(title="3")
        assert seen(calls) == [changed("2", "3")]

        testing.deliver()
        assert seen(calls) == [changed("2", "3"), new("1"), changed("1", "2")]

    def test_an_error_rolls_back_both(self):
        """In the transaction it is an error of the writer's."""

        def refuse(**kwargs):
            raise ValueError("no")

        inline.critical(post_save, Article, refuse, otherwise="after_commit")
        with pytest.raises(ValueError, match="no"):
            Article.objects.bulk_create([Article(title="a")])
        raw().execute(insert())

        assert titles() == ["raw"]
        with pytest.raises(ValueError, match="no"):
            testing.deliver()
        assert outbox() == 1


class TestInATestCase:
    """Nothing is committed there."""

    @pytest.fixture(autouse=True)
    def in_a_transaction(self, clean):  # noqa: F811
        with transaction.atomic():
            yield
            transaction.set_rollback(True)

    def test_writes_that_bypass_django_are_reported_before_delivery(self):
        calls = otherwise()
        raw().execute(insert())

        testing.deliver()
        assert seen(calls) == [new("raw")]
        testing.deliver()
        assert len(calls) == 1

    def test_handed_over_events_are_delivered_once(self):
        """As another program's transaction would leave it."""
        calls = otherwise()
        raw().execute(insert())
        raw().execute("SET CONSTRAINTS ALL IMMEDIATE")
        assert calls == []

        assert testing.deliver() == 1
        assert testing.deliver() == 0
        assert seen(calls) == [new("raw")]


class TestBesideOthers:
    def test_one_that_refuses_refuses(self, psql):
        calls = otherwise()
        inline.critical(post_save, Article, dispatch_uid="strict")

        done = psql(insert())

        assert done.returncode == 3
        assert f"of public.{ARTICLES} (1 row): strict\n" in done.stderr
        assert (titles(), outbox(), calls) == ([], 0, [])

    def test_one_that_refuses_other_operations(self, psql, write):
        """Refused is what its receiver would have been called for."""
        calls = otherwise()
        inline.critical(post_delete, Article, dispatch_uid="strict")
        write(insert())

        assert psql(f"DELETE FROM {ARTICLES}").returncode == 3
        assert testing.deliver() == 1
        assert seen(calls) == [new("raw")]

    def test_one_that_refuses_other_rows(self, psql, write):
        calls = otherwise()
        strict = inline.critical(
            post_save, Article, when=Q(new__title="strict"), dispatch_uid="strict"
        )
        write(insert("mild"))
        assert psql(insert("strict")).returncode == 3
        assert psql(f"BEGIN; {insert('other')}; {insert('strict')}; COMMIT").returncode == 3
        assert titles() == ["mild"]

        assert testing.deliver() == 1
        assert seen(calls) == [new("mild")]
        Article.objects.bulk_create([Article(title="strict")])
        assert len(calls) == 2
        assert len(strict) == 1

    def test_a_refusing_receiver_accepts_a_different_table(self, psql, write):
        calls = otherwise()
        inline.critical(post_save, Tag, dispatch_uid="strict")
        write(insert())
        done = psql(
            f"BEGIN; {insert('both')}; INSERT INTO {Tag._meta.db_table} (name, used) "
            "VALUES ('a', 0); COMMIT"
        )

        assert done.returncode == 3
        assert testing.deliver() == 1
        assert seen(calls) == [new("raw")]

    def test_those_after_the_commit_have_events_of_their_own(self, write):
        calls = otherwise(dispatch_uid="otherwise")
        after = reception.declare(post_save, Article, "after")
        inline.inline.capture(Article)
        write(f"{insert('a')}; {rename('a', 'b')}")
        Article.objects.update(title="c")
        assert seen(calls) == [changed("b", "c")]
        assert after == []

        testing.deliver()
        expected = [new("a"), changed("a", "b"), changed("b", "c")]
        assert seen(after) == expected
        assert sorted(seen(calls), key=expected.index) == expected
        assert testing.deliver() == 0

    def test_two_queues(self, write):
        one = otherwise(dispatch_uid="one")
        other = otherwise(dispatch_uid="other", queue="other")
        write(insert())

        assert testing.deliver(queues=["other"]) == 1
        assert (len(one), len(other)) == (0, 1)
        assert testing.deliver() == 1
        assert (len(one), len(other)) == (1, 1)

    def test_they_follow_each_other(self, write):
        order = []
        second = inline.critical(
            post_save,
            Article,
            lambda **kwargs: order.append("second"),
            otherwise="after_commit",
            dispatch_uid="second",
            after=["first"],
        )
        inline.critical(
            post_save,
            Article,
            lambda **kwargs: order.append("first"),
            otherwise="after_commit",
            dispatch_uid="first",
        )
        assert callable(second)
        write(insert())
        testing.deliver()
        Article.objects.update(title="b")

        assert order == ["first", "second"] * 2


class TestConditions:
    BECOMES_PAID = Q(new__title="paid") & ~Q(old__title="paid")

    def test_rows_that_fail_the_conditions_are_no_events(self, write):
        calls = otherwise(when=self.BECOMES_PAID)
        write(f"{insert('new')}; {rename('new', 'paid')}; {rename('paid', 'paid')}; {insert('x')}")

        assert outbox() == 1
        assert testing.deliver() == 1
        assert seen(calls) == [changed("new", "paid")]

    def test_of_several_receivers(self, write):
        paid = otherwise(when=self.BECOMES_PAID, dispatch_uid="paid")
        created = otherwise(when=Q(new__title="new"), dispatch_uid="created")
        every = otherwise(dispatch_uid="every")
        script = f"{insert('new')}; {rename('new', 'paid')}; {rename('paid', 'other')}"
        write(script)

        testing.deliver()
        assert seen(paid) == [changed("new", "paid")]
        assert seen(created) == [new("new")]
        assert len(every) == 3

        for statement in script.split("; "):
            execute(statement.replace("'other'", "'another'"))
        assert [len(calls) for calls in (paid, created, every)] == [2, 2, 6]
        assert testing.deliver() == 0

    def test_a_condition_that_is_newer_than_the_trigger(self, write):
        """It is evaluated when the event is delivered."""
        inline.critical(post_save, Article, dispatch_uid="old", otherwise="after_commit")
        write(f"{insert('a')}; {insert('b')}")
        with inline.inline.only_these():
            calls = reception.Calls()
            bulksafe.critical(
                post_save,
                sender=Article,
                dispatch_uid="new",
                otherwise="after_commit",
                when=Q(new__title="b"),
            )(calls)
            testing.deliver()

        assert seen(calls) == [new("b")]


class TestContext:
    def test_of_another_program(self, write):
        calls = otherwise()
        write(
            f"BEGIN; SELECT set_config('bulksafe.context', '{{\"user\": 7}}', true); {insert()}; "
            f"COMMIT; {insert()}"
        )

        testing.deliver()
        assert [call["context"] for call in calls] == [{"user": 7}, {}]

    def test_of_django(self):
        calls = otherwise()
        with bulksafe.context(user=7):
            Article.objects.create(title="a")
            with transaction.atomic():
                Article.objects.update(title="b")
                raw().execute(rename("b", "c"))

        assert [call["context"] for call in calls] == [{"user": 7}] * 3

    def test_what_a_receiver_writes_in_the_listener_has_it_too(self, write):
        contexts = []

        def react(instance, context, **kwargs):
            contexts.append((instance.title, context))
            Tag.objects.create(name=instance.title)

        inline.critical(post_save, Article, react, otherwise="after_commit")
        tags = inline.critical(post_save, Tag, dispatch_uid="tags")
        write(f"SET bulksafe.context = '{{\"user\": 7}}'; {insert()}")
        testing.deliver()

        assert contexts == [("raw", {"user": 7})]
        assert [call["context"] for call in tags] == [{"user": 7}]


# A listener in a process of its own.

MODELS = """
class Order(models.Model):
    number = models.CharField(max_length=20)
    amount = models.IntegerField(default=0)

class Express(Order):
    fee = models.IntegerField(default=0)

class Log(models.Model):
    text = models.TextField()

class Mended(models.Model):
    "While there is a row, the receivers work."
"""

RECEIVERS = """
import bulksafe
from django.db.models.signals import post_delete, post_save
from shop.models import Express, Log, Mended, Order

def note(name, instance, old, changed, created=None, context=None, **kwargs):
    if instance.number.startswith("bad") and not Mended.objects.exists():
        raise ValueError(f"cannot ship {instance.number}")
    parts = [name, instance.number, instance.amount, old and old.amount, created]
    parts += [",".join(sorted(changed)), (context or {}).get("user")]
    Log.objects.create(text=" ".join(map(str, parts)))

"""

RECEIVER = """
@bulksafe.critical({signal}, sender={sender}, dispatch_uid="{name}", otherwise="after_commit")
def {name}(sender, old, changed, context, **kwargs):
    note("{name}", old=old, changed=changed, context=context, **kwargs)
"""


@pytest.fixture
def shop(project):  # noqa: F811
    """A project whose receivers are for everybody's writes."""
    project.settings('BULKSAFE = {"RETRY_DELAY": 0.000001}\n')
    project.models(MODELS)
    receivers = [
        RECEIVER.format(name=name, signal=signal, sender=sender)
        for name, signal, sender in (
            ("ship", "post_save", "Order"),
            ("cancel", "post_delete", "Order"),
            ("hurry", "post_save", "Express"),
        )
    ]
    project.write("shop/receivers.py", RECEIVERS + "".join(receivers))
    project.make()
    project.migrate()
    return project


def listen(shop):
    shop.manage("bulksafe", "listen", "--once")


def texts(shop):
    """What the receivers have noted since this was asked last, by row, each row's in order."""
    found = shop.run(
        "WITH gone AS (DELETE FROM shop_log RETURNING *) SELECT text FROM gone ORDER BY id"
    )
    return sorted((text for (text,) in found), key=lambda text: text.split()[1])


def test_a_listener_in_its_process(shop):
    shop.run("INSERT INTO shop_order (number, amount) VALUES ('a', 1), ('b', 1)")
    shop.run("UPDATE shop_order SET amount = 2 WHERE number = 'a'")
    listen(shop)
    every = "amount,id,number"
    assert texts(shop) == [
        f"ship a 1 None True {every} None",
        "ship a 2 1 False amount None",
        f"ship b 1 None True {every} None",
    ]

    # In turn with Django, on one row.
    shop.python("""
        import bulksafe
        from shop.models import Order
        with bulksafe.context(user=7):
            Order.objects.filter(number="a").update(amount=3)
    """)
    assert texts(shop) == ["ship a 3 2 False amount 7"]
    with shop.connect() as other, other.transaction():
        other.execute("""SELECT set_config('bulksafe.context', '{"user": 8}', true)""")
        other.execute("UPDATE shop_order SET amount = 4 WHERE number = 'a'")
        other.execute("UPDATE shop_order SET amount = 5 WHERE number = 'a'")
    listen(shop)
    assert texts(shop) == ["ship a 4 3 False amount 8", "ship a 5 4 False amount 8"]
    shop.python("""
        from shop.models import Order
        order = Order.objects.get(number="a")
        order.amount = 6
        order.save()
        order.delete()
    """)
    shop.run("DELETE FROM shop_order")
    listen(shop)
    assert texts(shop) == [
        "ship a 6 5 False amount None",
        "cancel a 6 6 None  None",
        "cancel b 1 1 None  None",
    ]

    listen(shop)
    assert texts(shop) == []
    assert shop.run(
        "SELECT (SELECT count(*) FROM bulksafe_buffer), (SELECT count(*) FROM bulksafe_ticket)"
    ) == [(0, 0)]


def test_more_statements_than_places_are_kept_of(shop):
    """From some hundred statements on, one ticket is for all."""
    shop.run("INSERT INTO shop_order (number, amount) VALUES ('a', 0)")
    listen(shop)
    texts(shop)
    with shop.connect() as other, other.transaction():
        for number in range(1, 801):
            other.execute("UPDATE shop_order SET amount = %s WHERE number = 'a'", [number])
        ((tickets,),) = other.execute("SELECT count(*) FROM bulksafe_ticket").fetchall()
    listen(shop)

    assert 400 < tickets < 700
    assert texts(shop) == [f"ship a {n} {n - 1} False amount None" for n in range(1, 801)]
    assert shop.run(
        "SELECT (SELECT count(*) FROM bulksafe_buffer), (SELECT count(*) FROM bulksafe_ticket)"
    ) == [(0, 0)]


def test_a_row_that_lies_in_two_tables(shop):
    shop.python("""
        from shop.models import Express
        Express.objects.create(number="a", amount=1, fee=1)
    """)
    texts(shop)
    shop.run("UPDATE shop_order SET amount = 2")
    shop.run("UPDATE shop_express SET fee = 2")
    with shop.connect() as other, other.transaction():
        other.execute("INSERT INTO shop_order (number, amount) VALUES ('b', 1)")
        other.execute("INSERT INTO shop_express SELECT id, 1 FROM shop_order WHERE number = 'b'")
    listen(shop)

    found = texts(shop)
    assert [text for text in found if text.startswith("hurry a")] == [
        "hurry a 2 1 False amount None",
        "hurry a 2 2 False fee None",
    ]
    assert [text.partition(" True")[0] for text in found if text.startswith("hurry b")] == [
        "hurry b 1 None"
    ]
    assert [text for text in found if text.startswith("ship")] == [
        "ship a 2 1 False amount None",
        "ship b 1 None True amount,id,number None",
    ]


def test_a_receiver_that_fails_in_the_listener(shop):
    """It is tried again, like any other there; the writer has gone on."""
    shop.run("INSERT INTO shop_order (number, amount) VALUES ('bad', 1), ('good', 1)")
    shop.manage("bulksafe", "listen", "--once", code=1)
    assert texts(shop) == ["ship good 1 None True amount,id,number None"]
    assert shop.run("SELECT receiver, state FROM bulksafe_parked") == [("ship", "dead")]

    shop.run("INSERT INTO shop_mended DEFAULT VALUES")
    shop.manage("bulksafe", "retry", "--receiver", "ship")
    listen(shop)
    assert texts(shop) == ["ship bad 1 None True amount,id,number None"]


def test_a_project_whose_tables_another_project_writes(shop):
    """One that refuses is met at the commit, whichever way the project writes."""
    shop.write(
        "shop/receivers.py",
        RECEIVERS
        + RECEIVER.format(name="ship", signal="post_save", sender="Order").replace(
            'otherwise="after_commit"', 'otherwise="refuse"'
        ),
    )
    shop.make()
    shop.migrate()

    with pytest.raises(psycopg.IntegrityError, match="1 row\\): ship"):
        shop.run("INSERT INTO shop_order (number, amount) VALUES ('a', 1)")
    shop.python("""
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop_order (number, amount) VALUES ('a', 1)")
    """)
    assert texts(shop) == ["ship a 1 None True amount,id,number None"]
