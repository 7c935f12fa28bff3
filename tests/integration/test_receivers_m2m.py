"""``m2m_changed`` of a critical receiver, compared with Django's own."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, models, transaction
from django.db.models.signals import m2m_changed, post_save

from tests.integration import reception
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with reception.only_these():
        yield


@pytest.fixture
def ann(db):
    return User.objects.create(username="ann")


@pytest.fixture
def groups(db):
    return Group.objects.bulk_create(Group(name=name) for name in "abc")


@pytest.fixture
def calls(db):
    return reception.listen(m2m_changed, User.groups.through)


def shown(calls):
    """The calls, each with its distinguishing arguments."""
    return [
        (call["action"], call["instance"], {Group.objects.get(pk=pk).name for pk in call["pk_set"]})
        for call in calls.delivered()
    ]


@pytest.fixture
def plain():
    """The calls of a plain Django receiver: (action, instance, pk_set)."""
    received = []

    def receive(action, instance, pk_set, reverse, model, **kwargs):
        if action.startswith("post_"):
            received.append((action, instance, pk_set, reverse, model))

    m2m_changed.connect(receive, sender=User.groups.through)
    yield received
    m2m_changed.disconnect(receive, sender=User.groups.through)


def test_the_arguments_are_those_of_django(ann, groups, calls, plain):
    one, two, _ = groups
    ann.groups.add(one, two)
    ann.groups.remove(one)

    expected = [(action, instance, pks, False, Group) for action, instance, pks, *_ in plain]
    received = calls.delivered()
    names = ("action", "instance", "pk_set", "reverse", "model")
    assert [tuple(call[name] for name in names) for call in received] == expected == plain
    for call in received:
        assert call["signal"] is m2m_changed
        assert call["sender"] is User.groups.through
        assert call["using"] == "default"
        assert call["instance"] is not ann


def test_set_removes_and_adds(ann, groups, calls):
    one, two, three = groups
    ann.groups.set([one, two])
    calls.delivered()

    ann.groups.set([two, three])

    assert shown(calls) == [("post_remove", ann, {"a"}), ("post_add", ann, {"c"})]


def test_bulk_and_raw_writes_of_the_rows(ann, groups, calls):
    ben = User.objects.create(username="ben")
    one, two, three = groups
    through = User.groups.through
    through.objects.bulk_create(
        through(user=user, group=group) for user in (ann, ben) for group in (one, two)
    )
    assert shown(calls) == [("post_add", ann, {"a", "b"}), ("post_add", ben, {"a", "b"})]

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO auth_user_groups (user_id, group_id) VALUES (%s, %s)", [ann.pk, three.pk]
        )
        cursor.execute("DELETE FROM auth_user_groups WHERE group_id = %s", [one.pk])
    assert shown(calls) == [
        ("post_add", ann, {"c"}),
        ("post_remove", ann, {"a"}),
        ("post_remove", ben, {"a"}),
    ]


def test_a_no_op_change_calls_no_receiver(ann, groups, calls):
    ann.groups.add(groups[0])
    calls.delivered()

    ann.groups.add(groups[0])
    ann.groups.remove(groups[1])
    with transaction.atomic():
        ann.groups.clear()
        transaction.set_rollback(True)

    assert shown(calls) == []


def test_changes_back_and_forth_in_one_transaction_keep_their_order(ann, groups, calls):
    one, two, _ = groups
    ann.groups.add(one)
    ann.groups.remove(one)
    ann.groups.add(one, two)

    assert shown(calls) == [
        ("post_add", ann, {"a"}),
        ("post_remove", ann, {"a"}),
        ("post_add", ann, {"a", "b"}),
    ]


def test_an_instance_that_is_gone_has_its_key(ann, groups, calls):
    ann.groups.add(*groups)
    calls.delivered()
    key = ann.pk
    ann.delete()

    (call,) = calls.delivered()

    assert (call["action"], call["instance"].pk) == ("post_remove", key)
    assert call["pk_set"] == {group.pk for group in groups}
    assert call["instance"].get_deferred_fields()


# Otherwise than Django, on purpose.


def test_clear_removes_every_link(ann, groups, calls, plain):
    """The rows say what was removed. Django's post_clear does not."""
    ann.groups.add(*groups)
    calls.delivered()
    plain.clear()

    ann.groups.clear()

    assert [(action, pks) for action, _, pks, *_ in plain] == [("post_clear", None)]
    assert shown(calls) == [("post_remove", ann, {"a", "b", "c"})]


def test_the_other_side_s_writes_are_seen_from_the_first_side(ann, groups, calls, plain):
    """A row does not record the side that it was written from: reverse is always False."""
    ben = User.objects.create(username="ben")
    groups[0].user_set.add(ann, ben)

    ((_, instance, pks, is_reverse, model),) = plain
    assert (instance, pks, is_reverse, model) == (groups[0], {ann.pk, ben.pk}, True, User)
    assert shown(calls) == [("post_add", ann, {"a"}), ("post_add", ben, {"a"})]


@pytest.fixture
def people(db):
    """A symmetrical relation, and one with a through model of its own."""
    with isolated():
        person = declare(
            class_name="Person", name=models.CharField(max_length=9), friends=many("self")
        )
        club = declare(
            class_name="Club",
            members=models.ManyToManyField(
                person,
                through="unit.Membership",
                through_fields=("club", "person"),
                related_name="+",
            ),
        )
        membership = declare(
            class_name="Membership",
            club=models.ForeignKey(club, models.CASCADE),
            person=models.ForeignKey(person, models.CASCADE, related_name="memberships"),
            inviter=models.ForeignKey(person, models.CASCADE, null=True, related_name="+"),
            role=models.CharField(max_length=9, default=""),
        )
        with tables(person, club, membership):
            yield person, club, membership


def many(to):
    return models.ManyToManyField(to)


def test_a_symmetrical_relation_has_a_row_for_each_direction(people):
    person, *_ = people
    calls = reception.listen(m2m_changed, person.friends.through)
    one, two = person.objects.bulk_create([person(name="one"), person(name="two")])
    one.friends.add(two)

    received = [(call["action"], call["instance"], call["pk_set"]) for call in calls.delivered()]
    assert received == [("post_add", one, {two.pk}), ("post_add", two, {one.pk})]


def test_a_custom_through_model(people):
    person, club, membership = people
    calls = reception.listen(m2m_changed, membership)
    one, two = person.objects.bulk_create([person(name="one"), person(name="two")])
    here = club.objects.create()
    here.members.add(one, through_defaults={"inviter": two})
    membership.objects.create(club=here, person=two, inviter=one)
    membership.objects.update(role="x")
    membership.objects.filter(person=one).delete()

    received = [
        (call["action"], call["instance"], call["model"], call["pk_set"])
        for call in calls.delivered()
    ]
    assert received == [
        ("post_add", here, person, {one.pk, two.pk}),
        ("post_remove", here, person, {one.pk}),
    ]


def test_a_through_model_whose_link_lies_in_a_parents_table():
    with isolated():
        person = declare(class_name="Person")
        event = declare(
            class_name="Event", people=models.ManyToManyField(person, through="unit.Runner")
        )
        entry = declare(class_name="Entry", event=models.ForeignKey(event, models.CASCADE))
        runner = declare(
            class_name="Runner",
            bases=(entry,),
            person=models.ForeignKey(person, models.CASCADE, related_name="+"),
        )
        with tables(person, event, entry, runner):
            calls = reception.declare(m2m_changed, runner)
            reception.capture(runner, entry)
            here, one = event.objects.create(), person.objects.create()
            runner.objects.create(event=here, person=one)

            received = [(call["instance"], call["pk_set"]) for call in calls.delivered()]
            assert received == [(here, {one.pk})]


def test_a_through_model_whose_link_has_two_columns():
    with isolated():
        club = declare(class_name="Club")
        person = declare(
            class_name="Person",
            country=models.IntegerField(),
            clubs=models.ManyToManyField(club, through="unit.Membership", related_name="+"),
        )
        membership = declare(
            class_name="Membership",
            club=models.ForeignKey(club, models.CASCADE),
            person_number=models.IntegerField(),
            country=models.IntegerField(),
            person=models.ForeignObject(
                person,
                models.CASCADE,
                from_fields=["person_number", "country"],
                to_fields=["id", "country"],
            ),
        )
        with tables(person, club, membership):
            calls = reception.listen(post_save, membership)
            here, one = club.objects.create(), person.objects.create(country=1)
            made = membership.objects.create(club=here, person=one)

            assert [call["instance"] for call in calls.delivered()] == [made]
