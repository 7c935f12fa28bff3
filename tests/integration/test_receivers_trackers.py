"""Field trackers, which keep the loaded values, see the changes of an update."""

import copy
import functools
from decimal import Decimal

import pytest
from django.db import connection, models
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, post_save
from django.test.utils import CaptureQueriesContext

from bulksafe import testing
from bulksafe.declarations import receivers
from bulksafe.dispatch.batches import Batch
from bulksafe.dispatch.routes import Routes
from bulksafe.dispatch.sources import known
from bulksafe.outbox import parking
from bulksafe.outbox.failures import UNTRIED
from bulksafe.outbox.parking import Parking
from bulksafe.outbox.store import Store
from tests.integration import inline, reception
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these(), isolated():
        yield


FIELDS = ("amount", "note")


def snapshot(instance):
    known = instance.__dict__
    return {name: copy.deepcopy(known[name]) for name in FIELDS if name in known}


# Trackers, each as a function that makes a model's attributes or works on the class.


def by_init():
    def init(self, *args, **kwargs):
        models.Model.__init__(self, *args, **kwargs)
        self._old = snapshot(self)

    return {"__init__": init}


def by_from_db():
    def from_db(cls, db, field_names, values):
        instance = models.Model.from_db.__func__(cls, db, field_names, values)
        instance._old = snapshot(instance)
        return instance

    return {"from_db": classmethod(from_db)}


def by_setattr():
    """Like trackers that see each assignment: the first value of each attribute is the old one."""

    def assign(self, name, value):
        if name in FIELDS:
            self.__dict__.setdefault("_old", {}).setdefault(name, value)
        models.Model.__setattr__(self, name, value)

    return {"__setattr__": assign}


class Wrapper:
    """A field's descriptor as model-utils' FieldTracker wraps it."""

    def __init__(self, name, descriptor):
        self.name, self.descriptor = name, descriptor

    def __get__(self, instance, owner=None):
        return self if instance is None else self.descriptor.__get__(instance, owner)

    def __set__(self, instance, value):
        instance.__dict__[self.name] = value

    def __getattr__(self, name):
        return getattr(self.descriptor, name)


def by_wrapped_descriptors(model):
    """What model-utils' FieldTracker does to a class that is prepared."""
    for name in FIELDS:
        setattr(model, name, Wrapper(name, getattr(model, name)))
    inner = model.__init__

    @functools.wraps(inner)
    def init(self, *args, **kwargs):
        inner(self, *args, **kwargs)
        self._old = snapshot(self)

    model.__init__ = init


def by_post_init(model):
    def keep(sender, instance, **kwargs):
        instance._old = snapshot(instance)

    post_init.connect(keep, sender=model, weak=False)


class Remembering(DeferredAttribute):
    """A descriptor that keeps the first value it is given."""

    def __set__(self, instance, value):
        instance.__dict__.setdefault("_old", {}).setdefault(self.field.attname, value)
        instance.__dict__[self.field.attname] = value


def by_descriptor(model):
    for name in FIELDS:
        setattr(model, name, Remembering(model._meta.get_field(name)))


IN_CLASS = [by_init, by_from_db, by_setattr]
ON_CLASS = [by_wrapped_descriptors, by_post_init, by_descriptor]


@pytest.fixture(params=[*IN_CLASS, *ON_CLASS], ids=lambda one: one.__name__)
def tracked(request):
    tracker = request.param
    attributes = {
        "amount": models.IntegerField(default=0),
        "note": models.CharField(max_length=20, default=""),
        "state": models.CharField(max_length=20, default=""),
    }
    if tracker in IN_CLASS:
        attributes |= tracker()
    model = declare(class_name="Tracked", **attributes)
    if tracker in ON_CLASS:
        tracker(model)
    with tables(model):
        yield model
    post_init.disconnect(sender=model)


def changed(instance):
    """The tracker's answer: what has changed, from what, to what."""
    return {
        n: (v, getattr(instance, n)) for n, v in instance._old.items() if v != getattr(instance, n)
    }


def written(model, *updates):
    model.objects.bulk_create([model(amount=1, note="a")])
    testing.deliver()
    for values in updates:
        model.objects.update(**values)


def test_an_update(tracked):
    calls = reception.listen(post_save, tracked)
    written(tracked, {"amount": 2})

    (call,) = calls.delivered()
    assert changed(call["instance"]) == {"amount": (1, 2)}
    assert (call["instance"]._state.adding, call["instance"]._state.db) == (False, "default")
    assert (call["old"].amount, changed(call["old"])) == (1, {})


def test_an_update_in_the_transaction(tracked):
    found = []
    tracked.objects.bulk_create([tracked(amount=1, note="a")])
    inline.critical(post_save, tracked, lambda instance, **kwargs: found.append(changed(instance)))
    tracked.objects.update(amount=2)

    assert found == [{"amount": (1, 2)}]


def test_several_updates_at_once(tracked):
    calls = reception.listen(post_save, tracked, batch=True)
    written(tracked, {"amount": 2}, {"note": "b"})

    (call,) = calls.delivered()
    assert [changed(one) for one in call["instances"]] == [{"amount": (1, 2)}, {"note": ("a", "b")}]


def test_coalesced_updates_are_the_first_state_and_the_last(tracked):
    calls = reception.listen(post_save, tracked, coalesce=True)
    written(tracked, {"amount": 2}, {"note": "b"}, {"amount": 3})

    (call,) = calls.delivered()
    assert changed(call["instance"]) == {"amount": (1, 3), "note": ("a", "b")}


def test_a_parked_event(tracked):
    reception.listen(post_save, tracked)
    written(tracked, {"amount": 2})
    store = Store("default")
    batch = Batch(Routes("default"), store.prefix())
    (*_, event) = store.own_events(0)
    parkings = [Parking(receivers.listened()[0].name, event, UNTRIED)]
    parking.park(store, "default", atomic=True, parkings=parkings)

    (taken,) = parking.take(store, "default", known("default"), limit=10, lease=1)
    (delivery,) = batch.parked([(taken.events[0], receivers.by_name(taken.receiver))])
    assert changed(delivery.change.instance) == {"amount": (1, 2)}


def test_instances_that_are_built_again_after_a_failure(tracked):
    reception.listen(post_save, tracked)
    written(tracked, {"amount": 2})
    (call,) = testing.pending()
    (change,) = call.changes
    change.instance.amount = 77
    change.forget_instances()

    assert changed(change.instance) == {"amount": (1, 2)}


def test_new_and_deleted_rows_have_no_change(tracked):
    calls = reception.listen([post_save, models.signals.post_delete], tracked)
    tracked.objects.bulk_create([tracked(amount=1)])
    tracked.objects.all()._raw_delete("default")

    assert [changed(call["instance"]) for call in calls.delivered()] == [{}, {}]


# Other state that instances keep.


def looks(*names):
    """An ``__init__`` that fetches related objects, so that they are cached."""

    def init(self, *args, **kwargs):
        models.Model.__init__(self, *args, **kwargs)
        for name in names:
            getattr(self, name, None)

    return init


def test_a_related_object_that_was_fetched_when_the_row_was_loaded():
    owner = declare(class_name="Owner", name=models.CharField(max_length=9))
    pet = declare(
        class_name="Pet",
        owner=models.ForeignKey(owner, models.CASCADE),
        friend=models.ForeignKey(owner, models.CASCADE, related_name="+"),
        __init__=looks("owner", "friend"),
    )
    with tables(owner, pet):
        calls = reception.listen(post_save, pet)
        first, second = owner.objects.create(name="a"), owner.objects.create(name="b")
        pet.objects.bulk_create([pet(owner=first, friend=first)])
        testing.deliver()
        pet.objects.update(owner=second)

        (call,) = calls.delivered()
        assert call["instance"].owner.name == "b"
        with CaptureQueriesContext(connection) as queries:
            assert call["instance"].friend.name == "a"
        assert not queries.captured_queries


def test_a_parent_that_was_fetched_when_the_row_was_loaded():
    base = declare(class_name="Base", amount=models.IntegerField(default=0))
    child = declare(
        class_name="Child", bases=(base,), __init__=looks("base_ptr"), size=models.IntegerField()
    )
    with tables(base, child):
        calls = reception.declare(post_save, child)
        reception.capture(base, child)
        child.objects.create(size=1)
        testing.deliver()
        child.objects.update(amount=5)

        (call,) = calls.delivered()
        assert (call["instance"].amount, call["instance"].base_ptr.amount) == (5, 5)


def test_a_tracker_of_a_parents_fields():
    base = declare(class_name="Base", amount=models.IntegerField(default=0), **by_init())
    child = declare(class_name="Child", bases=(base,), size=models.IntegerField(default=0))
    with tables(base, child):
        calls = reception.declare(post_save, child)
        reception.capture(base, child)
        child.objects.create()
        testing.deliver()
        base.objects.update(amount=5)
        child.objects.update(size=6)

        found = [changed(call["instance"]) for call in calls.delivered()]
        # Both belong to one transaction, in which each table is written once: that is one change.
        assert found == [{"amount": (0, 5)}]


def test_generated_columns():
    twice = models.GeneratedField(
        expression=models.F("amount") * 2, output_field=models.IntegerField(), db_persist=True
    )
    model = declare(class_name="Made", amount=models.IntegerField(), twice=twice, **by_init())
    with tables(model):
        calls = reception.listen(post_save, model)
        model.objects.bulk_create([model(amount=1)])
        testing.deliver()
        model.objects.update(amount=4)

        (call,) = calls.delivered()
        assert (changed(call["instance"]), call["instance"].twice) == ({"amount": (1, 4)}, 8)


def test_equal_but_not_identical_values_are_set():
    model = declare(
        class_name="Exact",
        price=models.DecimalField(max_digits=9, decimal_places=2),
        **by_init(),
    )
    with tables(model):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {model._meta.db_table} ALTER price TYPE numeric")
        calls = reception.listen(post_save, model)
        model.objects.bulk_create([model(price=Decimal("1.00"))])
        testing.deliver()
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {model._meta.db_table} SET price = 1.0")

        (call,) = calls.delivered()
        assert str(call["instance"].price) == "1.0"


def test_values_converted_by_a_model_are_kept_while_unchanged():
    """As of a row that was loaded and saved: ``__init__`` decrypts once, when it is loaded."""

    def init(self, *args, **kwargs):
        models.Model.__init__(self, *args, **kwargs)
        self.secret = self.secret[::-1]

    model = declare(
        class_name="Secret",
        secret=models.CharField(max_length=9),
        number=models.IntegerField(default=0),
        __init__=init,
    )
    with tables(model):
        calls = reception.listen(post_save, model)
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {model._meta.db_table} (secret, number) VALUES ('abc', 0)")
        testing.deliver()
        model.objects.update(number=1)

        (call,) = calls.delivered()
        assert (call["instance"].secret, call["instance"].number) == ("cba", 1)
