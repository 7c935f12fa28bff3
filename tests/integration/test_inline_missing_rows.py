"""``bulk_update()`` leaves out objects whose rows are gone, and their receivers."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.db.models.signals import post_save, pre_save

from tests.apps.edges.models import Low, Pair, Stamped, Top
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
    noted,
)

pytestmark = pytest.mark.django_db(transaction=True)


def log(instance, signal, **kwargs):
    text = f"{'before' if signal is pre_save else 'after'} {instance}"
    Log.objects.create(side="", text=text)


#: The model, three objects of it, and the field that is written.
MODELS = {
    "one key": (Stamped, lambda n: {"code": str(n)}, "number"),
    "two keys": (Pair, lambda n: {"first": n, "second": n}, "note"),
    "two tables": (Low, lambda n: {"name": str(n)}, "depth"),
    "the parent's": (Low, lambda n: {"name": str(n)}, "name"),
}


def objects(name):
    model, values, field = MODELS[name]
    found = [model(**values(number)) for number in range(1, 4)]
    for one in found:
        one.save()
    gone = found[1]
    (Top if model is Low else model).objects.filter(pk=gone.pk).delete()
    return model, found, field


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("signals", [[pre_save], [pre_save, post_save]], ids=len)
@pytest.mark.parametrize("options", [{}, {"row_by_row": True}, {"row_by_row": False}], ids=str)
@pytest.mark.parametrize("is_atomic", [False, True])
def test_no_receiver_runs_for_them(name, signals, options, is_atomic):
    model, found, field = objects(name)
    inline.critical(signals, model, log, **options)
    first, gone, last = map(str, found)
    for one in found:
        setattr(one, field, 7)
    if is_atomic:
        with transaction.atomic():
            count = model.objects.bulk_update(found, [field])
    else:
        count = model.objects.bulk_update(found, [field])
    assert count == 2
    assert set(model.objects.values_list(field, flat=True)) in ({7}, {"7"})
    moments = ["before"] if len(signals) == 1 else ["before", "after"]
    assert sorted(noted()) == sorted(f"{m} {one}" for m in moments for one in (first, last))
    assert not any(gone in text for text in noted())


def test_batches_are_called_without_them():
    model, found, field = objects("one key")
    calls = []
    inline.critical(
        pre_save, model, lambda instances, **kwargs: calls.append(list(instances)), batch=True
    )
    model.objects.bulk_update(found, [field])
    assert calls[-1] == [found[0], found[2]]


def test_assignments_of_the_first_attempt_are_forgotten():
    model, found, field = objects("one key")

    def add(instance, **kwargs):
        instance.number += 1

    inline.critical(pre_save, model, add)
    model.objects.bulk_update(found, [field])
    assert [one.number for one in found] == [1, 0, 1]


def test_a_receiver_may_delete_the_row_that_it_is_called_for():
    model = Stamped
    found = [model.objects.create(code=str(number)) for number in range(3)]

    def delete(instance, **kwargs):
        Log.objects.create(side="", text=instance.code)
        if instance.code == "1":
            model.objects.filter(pk=instance.pk).delete()

    inline.critical(pre_save, model, delete)
    assert model.objects.bulk_update(found, ["number"]) == 2
    assert noted() == ["0", "1", "2"]
    assert sorted(model.objects.values_list("code", flat=True)) == ["0", "2"]


def test_nothing_is_called_if_all_are_gone():
    model, found, field = objects("one key")
    model.objects.all().delete()
    inline.critical([pre_save, post_save], model, log)
    assert model.objects.bulk_update(found, [field]) == 0
    assert noted() == []
