"""Models as packages make them, and writes that reach other rows, in the writer's transaction."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.apps.edges.models import (
    Beside,
    Line,
    Low,
    Money,
    Owner,
    Pair,
    Pet,
    Stamped,
    Thing,
    Top,
    Tracked,
)
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalNode as Node
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
    execute,
    insert,
)

pytestmark = pytest.mark.django_db(transaction=True)

SIGNALS = {
    "pre_save": pre_save,
    "post_save": post_save,
    "pre_delete": pre_delete,
    "post_delete": post_delete,
}


def listening(model, *names, look=lambda **kwargs: None):
    """Critical receivers that note their signal and the instance."""
    calls = []
    for name in names or SIGNALS:

        def note(instance, name=name, **kwargs):
            look(instance=instance, **kwargs)
            calls.append((name, instance))

        function = asking(note) if look is looks else note
        inline.critical(SIGNALS[name], model, function, dispatch_uid=f"{model.__name__} {name}")
    return calls


def asking(function):
    """The function, with a parameter for all that a receiver may ask for."""

    def ask(old, changed, event_id, context, **kwargs):
        function(old=old, changed=changed, event_id=event_id, context=context, **kwargs)

    return ask


def looks(instance, **kwargs):
    """Looks at all that a receiver may be given."""
    assert kwargs.keys() >= {"old", "changed", "event_id", "context", "using"}


def names(calls):
    return [name for name, _ in calls]


SAVED, DELETED = ["pre_save", "post_save"], ["pre_delete", "post_delete"]


# Classes whose methods were wrapped when they were made.


@pytest.mark.parametrize("look", [lambda **kwargs: None, looks], ids=["", "looking"])
def test_a_model_that_wraps_save_base(look):
    calls = listening(Tracked, look=look)
    tracked = Tracked.objects.create(number=1)
    assert names(calls) == SAVED
    tracked.number = 2
    tracked.save()
    assert names(calls) == 2 * SAVED
    assert all(instance is tracked for _, instance in calls)
    Tracked.objects.bulk_create([Tracked(number=3)])
    Tracked.objects.filter(number=3).update(number=4)
    assert names(calls) == 4 * SAVED
    assert tracked.saved == 2


# Parents and children.


@pytest.mark.parametrize("others", [[Low], [Low, Beside]], ids=["a child", "two children"])
@pytest.mark.parametrize("signals", [[], ["pre_save", "pre_delete"], ["post_save", "post_delete"]])
@pytest.mark.parametrize("look", [lambda **kwargs: None, looks], ids=["", "looking"])
class TestParents:
    """A write to a parent's row calls its receivers once, whatever other models share the table."""

    def of_the_parent(self, others, signals, look):
        self.others = [listening(other, *signals, look=look) for other in others]
        return listening(Top, look=look)

    def test_save(self, others, signals, look):
        calls = self.of_the_parent(others, signals, look)
        top = Top(name="a")
        top.save()
        top.name = "b"
        top.save()

        assert calls == [(name, top) for name in 2 * SAVED]
        assert all(instance is top for _, instance in calls)
        assert self.others == [[] for _ in others]

    def test_in_bulk(self, others, signals, look):
        calls = self.of_the_parent(others, signals, look)
        tops = Top.objects.bulk_create([Top(name="a"), Top(name="b")])
        assert sorted(names(calls)) == sorted(2 * SAVED)
        assert {id(instance) for _, instance in calls} == {id(top) for top in tops}
        calls.clear()
        tops[0].name = "c"
        Top.objects.bulk_update(tops[:1], ["name"])
        assert [(name, id(instance)) for name, instance in calls] == [
            (n, id(tops[0])) for n in SAVED
        ]
        calls.clear()
        Top.objects.update(name="d")
        assert sorted(names(calls)) == sorted(2 * SAVED)

    def test_delete(self, others, signals, look):
        calls = self.of_the_parent(others, signals, look)
        tops = Top.objects.bulk_create(Top(name=name) for name in "abc")
        calls.clear()
        tops[0].delete()
        assert names(calls) == DELETED
        calls.clear()
        Top.objects.all().delete()
        assert sorted(names(calls)) == sorted(2 * DELETED)

    def test_a_row_that_is_a_child_s(self, others, signals, look):
        """The child's receivers run for writes to the parent's table."""
        low = Low.objects.create(name="a", depth=1)
        calls = self.of_the_parent(others, signals, look)
        top = Top.objects.get()
        top.name = "b"
        top.save()

        assert names(calls) == SAVED
        of_low = names(self.others[0])
        assert of_low == [name for name in SAVED if not signals or name in signals]
        assert self.others[1:] == [[] for _ in others[1:]]
        assert Low.objects.get(pk=low.pk).name == "b"


CHILD_WRITES = {
    "save()": lambda low: low.save(),
    "save() of the parent's part": lambda low: low.save(update_fields=["name"]),
    "save() of the child's part": lambda low: low.save(update_fields=["depth"]),
    "bulk_update()": lambda low: Low.objects.bulk_update([low], ["name", "depth"]),
    "update()": lambda low: Low.objects.filter(pk=low.pk).update(name="b", depth=2),
}


@pytest.mark.parametrize("write", CHILD_WRITES)
@pytest.mark.parametrize("sibling", [None, pre_save], ids=["", "a sibling's pre_save"])
@pytest.mark.parametrize("look", [lambda **kwargs: None, looks], ids=["", "looking"])
def test_one_write_of_a_child_is_one_call_of_each_receiver(write, sibling, look):
    """Whatever receivers of other models make of the statement on the parent's table."""
    if sibling is not None:
        beside = listening(Beside, "pre_save")
    low = Low.objects.create(name="a", depth=1)
    seen = []
    for model, uid in ((Low, "one"), (Low, "two"), (Top, "three")):

        def note(instance, uid=uid, **kwargs):
            look(instance=instance, **kwargs)
            seen.append((uid, instance.name))

        function = asking(note) if look is looks else note
        inline.critical(post_save, model, function, dispatch_uid=uid)
    low.name, low.depth = "b", 2
    CHILD_WRITES[write](low)

    # Django sends the signals of the saved class, not the signals of its parents.
    assert sorted(seen) == [("one", "b"), ("two", "b")]
    assert sibling is None or not beside


@pytest.mark.parametrize("sibling", [None, pre_save], ids=["", "a sibling's pre_save"])
def test_changes_of_a_child_are_those_of_both_tables(sibling):
    if sibling is not None:
        listening(Beside, "pre_save")
    low = Low.objects.create(name="a", depth=1)
    seen = []

    def note(instance, old, changed, **kwargs):
        seen.append((old.name, old.depth, instance.name, instance.depth, sorted(changed)))

    inline.critical(post_save, Low, note)
    low.name, low.depth = "b", 2
    low.save()
    low.name, low.depth = "c", 3
    Low.objects.bulk_update([low], ["name", "depth"])
    assert seen == [
        ("a", 1, "b", 2, ["depth", "name"]),
        ("b", 2, "c", 3, ["depth", "name"]),
    ]


@pytest.mark.parametrize("write", ["delete()", "delete() of many", "bulk_update()", "save()"])
def test_the_database_cascades_deletions(write):
    """A cascade into a second model with receivers: the first model's receivers run once."""
    execute(
        f"ALTER TABLE {Line._meta.db_table} ADD CONSTRAINT along FOREIGN KEY (owner_id) "
        f"REFERENCES {Owner._meta.db_table} ON DELETE CASCADE"
    )
    try:
        owner = Owner.objects.create(name="a")
        Line.objects.create(name="b", owner=owner)
        calls, of_line = listening(Owner), listening(Line)
        match write:
            case "delete()":
                owner.delete()
            case "delete() of many":
                Owner.objects.all().delete()
            case "bulk_update()":
                Owner.objects.bulk_update([owner], ["name"])
            case "save()":
                owner.save()
        is_deletion = write.startswith("delete")
        assert names(calls) == (DELETED if is_deletion else SAVED)
        assert all(instance is owner for _, instance in calls) or write == "delete() of many"
        assert names(of_line) == (DELETED if is_deletion else [])
    finally:
        execute(f"ALTER TABLE {Line._meta.db_table} DROP CONSTRAINT along")


@pytest.mark.parametrize("options", [{}, {"row_by_row": True}], ids=["looking", "row by row"])
def test_columns_set_by_a_deletion_are_set_once(options):
    one, two, new = (Owner.objects.create(name=name) for name in ("one", "two", "new"))
    for owner in (one, two):
        Pet.objects.create(name=owner.name, owner=owner)
    signal = post_delete if options else pre_delete
    inline.critical(signal, Owner, lambda sender, **kwargs: sender.objects.count(), **options)
    calls = []

    def adopt(instance, sender, **kwargs):
        calls.append(instance.name)
        if calls.count(instance.name) == 1:
            sender.objects.filter(pk=instance.pk).update(owner=new)

    inline.critical(post_save, Pet, adopt)
    assert Owner.objects.exclude(name="new").delete() == (2, {Owner._meta.label: 2})

    assert list(Pet.objects.values_list("owner__name", flat=True)) == ["new", "new"]
    assert sorted(calls) == ["one", "two"]


@pytest.mark.parametrize("options", [{}, {"row_by_row": True}], ids=["looking", "row by row"])
def test_composite_keys_are_deleted_row_by_row(options):
    Pair.objects.bulk_create(Pair(first=1, second=number) for number in range(3))
    signal = post_delete if options else pre_delete
    counts = []
    inline.critical(
        signal, Pair, lambda sender, **kwargs: counts.append(sender.objects.count()), **options
    )

    execute(f"DELETE FROM {Pair._meta.db_table}")
    assert counts == ([2, 1, 0] if options else [3, 2, 1])


def test_composite_keys_are_locked():
    Pair.objects.bulk_create(Pair(first=1, second=number) for number in range(3))
    seen = []
    inline.critical(
        pre_save, Pair, lambda sender, instance, **kwargs: seen.append(sender.objects.count())
    )
    assert Pair.objects.update(note="a") == 3
    assert seen == [3, 3, 3]


# New rows.


@pytest.mark.parametrize("write", ["SQL", "ignore_conflicts", "update_conflicts"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_new_row_that_stands_has_its_key(write, count):
    """After receivers that have asked for nothing and assigned nothing."""
    calls = listening(Article, *SAVED)
    match write:
        case "SQL":
            for _ in range(count):
                execute(insert("a"))
        case "ignore_conflicts":
            rows = [Article(title="a") for _ in range(count)]
            Article.objects.bulk_create(rows, ignore_conflicts=True)
        case "update_conflicts":
            Article.objects.bulk_create(
                [Article(title="a") for _ in range(count)],
                update_conflicts=True,
                unique_fields=["id"],
                update_fields=["title"],
            )

    found = [instance.pk for name, instance in calls if name == "post_save"]
    assert found == list(Article.objects.order_by("pk").values_list("pk", flat=True))
    assert len(found) == count


def test_saving_such_a_row_inserts_no_second_row():
    listening(Article, "pre_save")

    def number(instance, created, **kwargs):
        if created:
            instance.slug = f"no-{instance.pk}"
            instance.save()

    inline.critical(post_save, Article, number)
    execute(insert("a"))

    article = Article.objects.get()
    assert article.slug == f"no-{article.pk}"


def test_a_row_has_no_database_before_the_write():
    seen = []
    inline.critical(pre_save, Stamped, lambda instance, **kwargs: seen.append(instance._state.db))
    execute(f"INSERT INTO {Stamped._meta.db_table} (code, number, created) VALUES ('a', 1, now())")
    assert seen == [None]


# Fields with a mind of their own.


@pytest.mark.parametrize("name", ["pre_save", "post_save"])
@pytest.mark.parametrize("way", ["update()", "SQL"])
def test_a_field_that_refuses_to_be_assigned(name, way):
    Thing.objects.create()
    seen = []

    def receiver(instance, old, **kwargs):
        seen.append((old.state, instance.state))

    inline.critical(SIGNALS[name], Thing, receiver)
    if way == "SQL":
        execute(f"UPDATE {Thing._meta.db_table} SET state = 'done'")
    else:
        Thing.objects.update(state="done")

    assert seen == [("new", "done")]
    assert Thing.objects.get().state == "done"


def test_a_field_that_sets_another_field():
    """The instance is what the row is."""
    Thing.objects.create(picture="ab", width=7)
    seen = []
    inline.critical(
        post_save,
        Thing,
        lambda instance, old, **kwargs: seen.append((instance.picture, instance.width)),
    )
    Thing.objects.update(picture="abcdef")

    assert seen == [("abcdef", 7)]


def test_changed_of_a_field_that_makes_objects():
    Thing.objects.create(price=Decimal("1.50"))
    thing = Thing.objects.get()
    assert thing.price == Money(Decimal("1.50"))
    found = []
    inline.critical(
        pre_save, Thing, lambda instance, changed, **kwargs: found.append(sorted(changed))
    )
    thing.number = 1
    thing.save()
    Thing.objects.bulk_update([thing], ["number"])
    thing.price = Money(Decimal("2.00"))
    thing.number = "1"
    Thing.objects.bulk_update([thing], ["number"])

    assert found == [["number"], [], ["price"]]


def test_values_only_read_are_not_stored():
    Thing.objects.create(price=Decimal("1.50"))
    statements = []

    def note(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    inline.critical(pre_save, Thing, lambda instance, **kwargs: instance.price.amount)
    with connection.execute_wrapper(note):
        Thing.objects.update(number=F("number") + 1)

    assert any("number" in sql for sql in statements)
    assert not any("price" in sql for sql in statements)


# Calls.


WRITES = {
    "save()": lambda article: article.save(),
    "update()": lambda _: Article.objects.update(title="b"),
    "SQL": lambda _: execute(f"UPDATE {Article._meta.db_table} SET title = 'b'"),
    "bulk_create()": lambda _: Article.objects.bulk_create([Article(title="b")]),
}


@pytest.mark.parametrize("signal", [pre_save, post_save])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_stop_iteration_is_an_ordinary_exception(signal, write):
    article = Article.objects.create(title="a")
    inline.critical(signal, Article, lambda **kwargs: next(iter(())))
    with pytest.raises(StopIteration):
        write(article)

    assert list(Article.objects.values_list("title", flat=True)) == ["a"]


def test_a_long_chain_of_rows_ends():
    node = None
    for _ in range(60):
        node = Node.objects.create(name="n", parent=node)

    def down(instance, sender, **kwargs):
        for child in sender.objects.filter(parent=instance):
            child.path = f"{int(instance.path) + 1}"
            child.save()

    inline.critical(post_save, Node, down)
    first = Node.objects.earliest("pk")
    first.path = "1"
    first.save()

    assert Node.objects.latest("pk").path == "60"


def test_callproc():
    calls = listening(Article)
    execute(
        "CREATE OR REPLACE FUNCTION edges_add() RETURNS int LANGUAGE sql AS "
        f"$f$ {insert('function')} RETURNING 1 $f$"
    )
    try:
        with connection.cursor() as cursor:
            cursor.callproc("edges_add")
            assert cursor.fetchall() == [(1,)]
    finally:
        execute("DROP FUNCTION edges_add")

    assert names(calls) == SAVED
    assert Article.objects.count() == 1
