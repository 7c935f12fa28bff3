"""Rows of every kind, and what happens to them, before receivers in the writer's transaction."""

from __future__ import annotations

import uuid

import pytest
from django.db import ProgrammingError, connection, transaction
from django.db.models import F, JSONField, Q, Value
from django.db.models.functions import Concat, Now
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from tests.apps.columns.models import InSchema
from tests.apps.mirrors.models import (
    CriticalEntry,
    CriticalShelf,
    CriticalTag,
    Place,
    Sample,
    Token,
    Ware,
)
from tests.integration import inline

pytestmark = pytest.mark.django_db

ONE, TWO, THREE, FOUR = (uuid.UUID(int=number) for number in (1, 2, 3, 4))


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        return cursor.fetchall() if cursor.description else None


def trigger(table, event, body):
    """A trigger of the user's own."""
    execute(
        f"CREATE FUNCTION {table}_own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
    )
    execute(f"CREATE TRIGGER own {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_own()")


# Deletions.


def test_a_deletion_may_set_null_and_cascade_at_once():
    CriticalShelf.objects.create(number=1)
    CriticalEntry.objects.create(number=1, shelf_id=1)
    CriticalEntry.objects.create(number=2, box_id=1)
    stored = []

    def look(sender, instance, **kwargs):
        stored.append((instance.box_id, sender.objects.get(pk=instance.pk).box_id))
        instance.version += 1

    inline.critical(pre_save, CriticalEntry, look)
    CriticalShelf.objects.filter(number=1).delete()

    assert stored == [(None, 1)]
    assert CriticalEntry.objects.values_list("number", "version").get() == (2, 1)


def family():
    Sample.objects.create(id=ONE, name="root")
    Sample.objects.create(id=TWO, name="child", parent_id=ONE)
    Sample.objects.create(id=THREE, name="other")
    Sample.objects.create(id=FOUR, name="friend", friend_id=TWO)


def test_cascaded_rows_send_their_signals_once():
    """All pre_delete signals of one ``delete()`` precede its first DELETE, as in Django."""
    family()
    seen = []

    def before(sender, instance, **kwargs):
        instance.mark = sender.objects.filter(name__in=["root", "child", "other"]).count()
        seen.append(("pre_delete", instance.name, instance.mark))

    def after(instance, **kwargs):
        seen.append(("post_delete", instance.name, instance.mark))

    inline.critical(pre_delete, Sample, before)
    inline.critical(post_delete, Sample, after)
    saved = inline.critical(post_save, Sample)
    assert Sample.objects.exclude(name="friend").delete() == (3, {"mirrors.Sample": 3})

    assert sorted(seen) == [
        ("post_delete", "child", 3),
        ("post_delete", "other", 3),
        ("post_delete", "root", 3),
        ("pre_delete", "child", 3),
        ("pre_delete", "other", 3),
        ("pre_delete", "root", 3),
    ]
    assert [call["instance"].name for call in saved] == ["friend"]


def test_cascaded_rows_send_their_signals_once_row_by_row():
    family()
    after = inline.critical(post_delete, Sample, row_by_row=True)
    Sample.objects.all().delete()

    assert {call["instance"].name for call in after} == {"root", "child", "other", "friend"}
    assert len(after) == 4


def test_rows_deleted_by_a_database_cascade_send_their_signals_once():
    family()
    execute("SET CONSTRAINTS ALL IMMEDIATE")
    for column, action in (("parent_id", "CASCADE"), ("friend_id", "SET NULL")):
        ((name,),) = execute(
            "SELECT conname FROM pg_constraint JOIN pg_attribute "
            "ON attrelid = conrelid AND conkey = ARRAY[attnum] "
            "WHERE conrelid = 'mirrors_sample'::regclass AND contype = 'f' AND attname = %s",
            [column],
        )
        execute(f"ALTER TABLE mirrors_sample DROP CONSTRAINT {name}")
        execute(
            f"ALTER TABLE mirrors_sample ADD FOREIGN KEY ({column}) REFERENCES mirrors_sample "
            f"ON DELETE {action}"
        )
    seen = []

    def look(signal, sender, instance, **kwargs):
        sender.objects.filter(height=1).count()
        seen.append((signal in {pre_delete, pre_save}, instance.name))

    for signal in (pre_delete, post_delete, pre_save, post_save):
        inline.critical(signal, Sample, look)
    execute("DELETE FROM mirrors_sample WHERE id = %s", [THREE])
    execute("DELETE FROM mirrors_sample WHERE id = %s", [ONE])

    names = ["child", "friend", "other", "root"]
    assert sorted(seen) == [(is_before, name) for is_before in (False, True) for name in names]


# Links.


def test_links_that_bypass_the_manager_are_announced_once():
    link = CriticalEntry.tags.through
    entry = CriticalEntry.objects.create(number=1)
    for number in (1, 2):
        CriticalTag.objects.create(number=number)
    seen = []

    def look(instance, action, pk_set, **kwargs):
        stored = set(instance.tags.values_list("pk", flat=True))
        seen.append((action, pk_set, stored))

    inline.critical(m2m_changed, link, look)
    link.objects.bulk_create(link(criticalentry=entry, criticaltag_id=n) for n in (1, 2))
    link.objects.filter(criticaltag=1).delete()
    execute(f"DELETE FROM {link._meta.db_table}")

    assert seen == [
        ("pre_add", {1, 2}, set()),
        ("post_add", {1, 2}, {1, 2}),
        ("pre_remove", {1}, {1, 2}),
        ("post_remove", {1}, {2}),
        ("pre_remove", {2}, {2}),
        ("post_remove", {2}, set()),
    ]


def test_links_of_one_instance_are_one_call_even_if_its_receiver_reads_them():
    link = CriticalEntry.tags.through
    CriticalTag.objects.bulk_create(CriticalTag(number=number) for number in (1, 2))
    entries = [CriticalEntry.objects.create(number=number) for number in (1, 2)]
    entries[0].tags.set([1, 2])
    entries[1].tags.set([1])
    seen = []

    def look(instance, action, pk_set, **kwargs):
        seen.append((instance.number, action, pk_set, instance.tags.count()))

    inline.critical(m2m_changed, link, look)
    execute(f"DELETE FROM {link._meta.db_table}")

    assert sorted(seen, key=str) == [
        (1, "post_remove", {1, 2}, 0),
        (1, "pre_remove", {1, 2}, 2),
        (2, "post_remove", {1}, 0),
        (2, "pre_remove", {1}, 1),
    ]


# Stored values.


def test_generated_columns_change_for_rows_stored_one_by_one():
    Sample.objects.bulk_create(Sample(id=key) for key in (ONE, TWO))
    seen = []

    def look(sender, instance, **kwargs):
        instance.height = sender.objects.filter(width=5).count() + 1

    inline.critical(pre_save, Sample, look)
    inline.critical(post_save, Sample, lambda instance, **kwargs: seen.append(instance.area))
    Sample.objects.update(width=5)

    assert list(Sample.objects.order_by("id").values_list("area", flat=True)) == [5, 10]
    assert seen == [5, 10]


def test_only_what_was_assigned_to_a_row_is_stored_of_it():
    """A null of JSON and one of SQL are the same to Python."""
    Sample.objects.create(id=ONE, data=Value(None, JSONField()))
    Sample.objects.create(id=TWO, data={})

    def assign(instance, **kwargs):
        if instance.data is None:
            instance.name = "none"
        else:
            instance.data["n"] = 1

    inline.critical(pre_save, Sample, assign)
    Sample.objects.update(height=4)

    rows = execute("SELECT data::text FROM mirrors_sample ORDER BY id")
    assert rows == [("null",), ('{"n": 1}',)]
    assert list(Sample.objects.order_by("id").values_list("name", flat=True)) == ["none", ""]


def test_assigning_an_expression_in_a_receiver_is_no_separate_write():
    Ware.objects.create(code="a")
    calls = []

    def assign(instance, **kwargs):
        calls.append(instance.count)
        instance.count = F("count") + 1

    inline.critical(pre_save, Ware, assign)
    after = inline.critical(post_save, Ware)
    Ware.objects.update(count=5)

    assert calls == [5]
    assert [call["instance"].count for call in after] == [6]
    assert Ware.objects.get().count == 6


@pytest.mark.parametrize("looks", [False, True])
def test_the_key_of_a_row_changes(looks):
    for code in ("a", "b"):
        Ware.objects.create(code=code)
    keys = []

    def before(sender, instance, old, **kwargs):
        keys.append((old.pk, instance.pk))
        instance.count += sender.objects.filter(name="").count() if looks else 2

    inline.critical(pre_save, Ware, before)
    after = inline.critical(post_save, Ware)
    Ware.objects.update(code=Concat("code", Value("2")))

    assert keys == [("a", "a2"), ("b", "b2")]
    assert sorted(Ware.objects.values_list("code", "count")) == [("a2", 2), ("b2", 2)]
    assert [call["instance"].count for call in after] == [2, 2]


def test_a_receiver_assigns_the_key():
    inline.critical(pre_save, Ware, lambda instance, **kwargs: upper(instance))
    after = inline.critical(post_save, Ware)
    execute("INSERT INTO mirrors_ware (code, name, count) VALUES ('a', '', 0), ('b', '', 0)")

    assert sorted(Ware.objects.values_list("code", flat=True)) == ["A", "B"]
    assert [call["instance"].pk for call in after] == ["A", "B"]


def upper(ware):
    ware.code = ware.code.upper()


@pytest.mark.parametrize("looks", [False, True])
def test_keys_of_two_columns(looks):
    def before(sender, instance, **kwargs):
        instance.count += 1
        if looks:
            instance.name = str(sender.objects.filter(count__gt=0).count())

    inline.critical(pre_save, Place, before)
    after = inline.critical(post_save, Place)
    Place.objects.bulk_create(Place(row=1, column=column) for column in "ab")
    Place.objects.update(row=2)
    execute("UPDATE mirrors_place SET row = row + 1 WHERE \"column\" = 'a'")
    Place.objects.bulk_create(
        [Place(row=3, column=column, count=10) for column in "ac"],
        update_conflicts=True,
        unique_fields=["row", "column"],
        update_fields=["count"],
    )

    assert sorted(Place.objects.values_list("pk", "count")) == [
        ((2, "b"), 2),
        ((3, "a"), 11),
        ((3, "c"), 11),
    ]
    assert [(call["instance"].pk, call["created"]) for call in after] == [
        ((1, "a"), True),
        ((1, "b"), True),
        ((2, "a"), False),
        ((2, "b"), False),
        ((3, "a"), False),
        ((3, "a"), False),
        ((3, "c"), True),
    ]


INSERT_ENTRY = (
    "INSERT INTO mirrors_criticalentry "
    "(number, name, slug, position, state, amount, version, data) "
    "VALUES (%s, '', '', 0, 'draft', 0, 0, '{}')"
)


@pytest.mark.parametrize("looks", [False, True])
def test_a_row_is_changed_several_times_in_one_write(looks):
    """Each change is one to the receivers, which go on from what they made of the last one."""
    seen = []

    def before(sender, instance, **kwargs):
        seen.append((instance.number, instance.amount))
        instance.version += 1
        instance.data.setdefault("seen", []).append(instance.amount)
        if looks:
            sender.objects.filter(slug="x").count()

    inline.critical(pre_save, CriticalEntry, before)
    after = inline.critical(post_save, CriticalEntry)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"{INSERT_ENTRY} ON CONFLICT (number) DO UPDATE "
            "SET amount = mirrors_criticalentry.amount + 1",
            [[1], [2], [1], [1]],
        )

    assert seen == [(1, 0), (2, 0), (1, 1), (1, 2)]
    assert [(call["instance"].number, call["instance"].version) for call in after] == [
        (1, 1),
        (2, 1),
        (1, 2),
        (1, 3),
    ]
    stored = CriticalEntry.objects.order_by("number").values_list("version", "data")
    assert list(stored) == [(3, {"seen": [0, 1, 2]}), (1, {"seen": [0]})]


def test_rows_that_refer_to_new_rows_go_through_once():
    """The database numbers the new rows otherwise each time."""
    link = CriticalEntry.tags.through
    CriticalTag.objects.create(number=1)
    seen = []
    for model in (CriticalEntry, link):
        inline.critical(pre_save, model, lambda sender, **kwargs: seen.append(sender))
    execute(
        f"WITH entry AS ({INSERT_ENTRY} RETURNING id) "
        f"INSERT INTO {link._meta.db_table} (criticalentry_id, criticaltag_id) "
        "SELECT id, 1 FROM entry",
        [1],
    )

    assert sorted(seen, key=str) == [CriticalEntry, link]
    assert link.objects.get().criticalentry.number == 1


def test_new_rows_have_the_numbers_that_the_statement_returned():
    def look(sender, instance, **kwargs):
        instance.position = sender.objects.count()

    inline.critical(pre_save, CriticalEntry, look)
    with connection.cursor() as cursor:
        numbers = []
        for count in (2, 1):
            rows = ", ".join([INSERT_ENTRY.partition("VALUES ")[2]] * count)
            text = f"{INSERT_ENTRY.partition('VALUES ')[0]} VALUES {rows} RETURNING number, id"
            cursor.execute(text, range(len(numbers), len(numbers) + count))
            numbers += cursor.fetchall()

    entries = CriticalEntry.objects.order_by("number")
    assert list(entries.values_list("number", "id")) == numbers
    assert list(entries.values_list("position", flat=True)) == [0, 1, 2]


def test_a_non_deterministic_value_is_stored_as_receivers_saw_it():
    Sample.objects.bulk_create(Sample(id=key) for key in (ONE, TWO))
    seen = []

    def before(sender, instance, **kwargs):
        seen.append(instance.moment)
        instance.height += sender.objects.filter(pk=instance.pk).count()

    inline.critical(pre_save, Sample, before)
    after = inline.critical(post_save, Sample)
    Sample.objects.update(moment=Now())

    stored = list(Sample.objects.values_list("moment", "height"))
    assert stored == [(moment, 4) for moment in seen]
    assert [call["instance"].moment for call in after] == seen


@pytest.mark.parametrize("looks", [False, True])
def test_keys_generated_by_the_database(looks):
    def before(sender, instance, **kwargs):
        instance.count = sender.objects.count() + 1 if looks else instance.count + 1

    before_calls = inline.critical(pre_save, Token)
    inline.critical(pre_save, Token, before)
    after = inline.critical(post_save, Token)
    returned = execute("INSERT INTO mirrors_token (count) VALUES (0), (0) RETURNING id")

    assert len(before_calls) == len(after) == 2
    assert [(call["instance"].pk,) for call in after] == returned
    assert sorted(Token.objects.values_list("id")) == sorted(returned)
    assert {call["instance"].count for call in after} == ({1, 2} if looks else {1})


def test_a_receiver_called_again_sees_the_row_that_another_receiver_changed():
    for code in "abcd":
        Ware.objects.create(code=code)

    def before(sender, instance, **kwargs):
        if instance.pk == "a":
            sender.objects.filter(pk__in=["c", "d"]).update(name="from a")
        if instance.name == "from a":
            sender.objects.filter(name="x").count()
        instance.name += "+"

    inline.critical(pre_save, Ware, before)
    Ware.objects.update(count=1)

    assert sorted(Ware.objects.values_list("code", "name", "count")) == [
        ("a", "+", 1),
        ("b", "+", 1),
        ("c", "from a+", 1),
        ("d", "from a+", 1),
    ]


# Conditions on rows that are about to be stored.


def samples():
    return [Sample(id=ONE, name="yes"), Sample(id=TWO, name="no")]


def save_samples():
    for sample in samples():
        sample.save()


@pytest.mark.parametrize(
    "write", [save_samples, lambda: Sample.objects.bulk_create(samples())], ids=["save", "bulk"]
)
def test_a_condition_ignores_values_that_only_the_database_has(write):
    def declare(when):
        return inline.critical(pre_save, Sample, when=when)

    named = declare(Q(new__name="yes"))
    # The value is unknown until it is stored.
    wide, large = declare(Q(new__width__gt=100)), declare(Q(new__area__gt=100))
    write()
    assert [len(calls) for calls in (named, wide, large)] == [1, 2, 2]

    named.clear()
    Sample.objects.bulk_update(Sample.objects.all(), ["height"])
    assert [call["instance"].name for call in named] == ["yes"]


def test_rows_of_a_table_in_a_schema_are_locked():
    InSchema.objects.bulk_create(InSchema(number=number) for number in (1, 2))

    def look(sender, instance, **kwargs):
        instance.number += sender.objects.filter(number=4).count() + 1

    inline.critical(pre_save, InSchema, look)
    InSchema.objects.update(number=3)
    assert sorted(InSchema.objects.values_list("number", flat=True)) == [4, 5]


# Receivers of many rows at once.


def insert_wares():
    execute("INSERT INTO mirrors_ware (code, name, count) VALUES ('a', '', 0), ('b', '', 0)")


def bulk_update_wares():
    Ware.objects.bulk_update(list(Ware.objects.order_by("code")), ["name"])


@pytest.mark.parametrize(
    ("write", "is_new"),
    [
        (lambda: Ware.objects.bulk_create([Ware(code="a"), Ware(code="b")]), True),
        (insert_wares, True),
        (bulk_update_wares, False),
        (lambda: Ware.objects.update(count=1), False),
    ],
    ids=["bulk_create", "INSERT", "bulk_update", "update"],
)
def test_batch_receivers_run_once_even_if_rows_are_stored_one_by_one(write, is_new):
    if not is_new:
        insert_wares()
    seen = []

    def look(sender, instance, **kwargs):
        seen.append(("look", instance.pk))
        instance.name += str(sender.objects.filter(name__contains="xy").count())

    def many(instances, **kwargs):
        seen.extend(("many", instance.pk) for instance in instances)
        for instance in instances:
            instance.name += "x"

    def later(instance, **kwargs):
        seen.append(("later", instance.pk))
        instance.name += "y"

    inline.critical(pre_save, Ware, look)
    inline.critical(pre_save, Ware, later, after=["many"])
    inline.critical(pre_save, Ware, many, batch=True, dispatch_uid="many")
    after = inline.critical(post_save, Ware)
    write()

    assert sorted(seen) == [(name, key) for name in ("later", "look", "many") for key in "ab"]
    assert [call["instance"].name for call in after] == ["0xy", "1xy"]
    assert list(Ware.objects.order_by("code").values_list("name", flat=True)) == ["0xy", "1xy"]


# Triggers of the user's own.


@pytest.mark.parametrize(
    "write",
    [
        lambda: CriticalShelf.objects.create(number=2),
        lambda: CriticalShelf.objects.bulk_create([CriticalShelf(number=2)]),
        lambda: CriticalShelf.objects.update(entries=1),
        lambda: CriticalShelf.objects.all().delete(),
    ],
    ids=["create", "bulk_create", "update", "delete"],
)
def test_a_trigger_writes_to_another_critical_table(write):
    CriticalShelf.objects.create(number=1)
    Ware.objects.create(code="a")
    trigger(
        "mirrors_criticalshelf",
        "AFTER INSERT OR UPDATE OR DELETE",
        "UPDATE mirrors_ware SET count = count + 1; RETURN NULL;",
    )
    for signal in (pre_save, post_save, pre_delete, post_delete):
        inline.critical(signal, CriticalShelf)
    inline.critical(pre_save, Ware, lambda instance, **kwargs: rename(instance))
    after = inline.critical(post_save, Ware)
    write()

    assert Ware.objects.values_list("count", "name").get() == (1, "+")
    assert [(call["instance"].name, call["old"].count) for call in after] == [("+", 0)]


def rename(ware):
    ware.name += "+"


@pytest.mark.parametrize("is_new", [False, True])
def test_a_trigger_writes_to_the_row_that_is_saved(is_new):
    if not is_new:
        Ware.objects.create(code="a")
    trigger(
        "mirrors_ware",
        "AFTER INSERT OR UPDATE",
        "IF pg_trigger_depth() = 1 THEN UPDATE mirrors_ware SET name = 'x'; END IF; RETURN NULL;",
    )
    after = inline.critical(post_save, Ware)
    Ware(code="a", count=1).save()

    (call,) = after
    assert call["created"] == is_new
    assert (call["old"] is None) == is_new
    assert call["changed"] == {"count", "name"} | ({"code"} if is_new else set())


def test_a_trigger_writes_to_new_rows():
    trigger(
        "mirrors_criticalentry",
        "AFTER INSERT",
        "UPDATE mirrors_criticalentry SET slug = 's' WHERE id = NEW.id; RETURN NULL;",
    )
    seen = []

    def before(instance, **kwargs):
        seen.append((instance.number, bool(instance.slug)))
        instance.version += 1

    inline.critical(pre_save, CriticalEntry, before)
    execute(INSERT_ENTRY, [1])

    # As in a save(), that is one change of the row.
    assert seen == [(1, False)]
    entry = CriticalEntry.objects.get()
    assert (entry.slug, entry.version) == ("s", 1)


@pytest.mark.parametrize("unique", [["code", "name"], ["name"]], ids=str)
def test_postgresql_refuses_an_upsert_over_fields_that_are_not_unique(unique):
    """Also where all rows exist, so that none is inserted."""
    Ware.objects.create(code="a", name="x")
    calls = []
    inline.critical(pre_save, Ware, lambda **named: calls.append(named))

    with (
        pytest.raises(ProgrammingError, match="unique or exclusion constraint"),
        transaction.atomic(),
    ):
        Ware.objects.bulk_create(
            [Ware(code="a", name="x", count=1)],
            update_conflicts=True,
            unique_fields=unique,
            update_fields=["count"],
        )

    assert calls == []
    assert Ware.objects.get().count == 0
