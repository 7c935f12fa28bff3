"""Receivers that read the table inside their own ``atomic()``, which may roll back."""

from django.db import IntegrityError, transaction
from django.db.models.signals import post_save, pre_delete, pre_save

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, case


def a_tag(m):
    m.Tag.objects.create(pk=1, name="taken")


def _fail(m):
    m.Tag.objects.bulk_create([m.Tag(pk=1, name="taken again")])


SAVED = {"setup": a_tag, "kinds": (CREATE, UPDATE)}


@case("an error that the receiver catches, with what it looked at before", **SAVED)
def caught(m):
    def note(sender, instance, **kwargs):
        try:
            with transaction.atomic():
                instance.note = f"number {sender.objects.count()}"
                m.log("lost")
                _fail(m)
        except IntegrityError:
            instance.total += 1

    return [(pre_save, m.Item, note)]


@case("an inner error that the receiver catches, in an outer block", **SAVED)
def caught_inside(m):
    def note(sender, instance, **kwargs):
        with transaction.atomic():
            instance.position = sender.objects.filter(price=0).count()
            try:
                with transaction.atomic():
                    instance.total = sender.objects.count()
                    _fail(m)
            except IntegrityError:
                m.log(f"{instance.name}: {sender.objects.count()}")

    return [(pre_save, m.Item, note)]


@case("a block that the receiver rolls back on purpose", **SAVED)
def rolled_back(m):
    def note(sender, instance, **kwargs):
        with transaction.atomic():
            instance.total = sender.objects.count()
            transaction.set_rollback(True)
        instance.position = sender.objects.count()

    def after(sender, instance, **kwargs):
        m.log(f"{instance.name}: {instance.total} {instance.position}")

    return [(pre_save, m.Item, note), (post_save, m.Item, after)]


@case("an error that the receiver catches before a deletion", setup=a_tag, kinds=(DELETE,))
def caught_before_a_deletion(m):
    def note(sender, instance, **kwargs):
        try:
            with transaction.atomic():
                m.calls.append(sender.objects.filter(name="no row").exists())
                _fail(m)
        except IntegrityError:
            m.log(f"{instance.name} goes")

    return [(pre_delete, m.Item, note)]
