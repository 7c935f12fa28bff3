"""Receivers that write to their own row, or only read its fields."""

from django.db.models import F, Q
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, case


@case("count the hits in the row itself", letter="c", kinds=(CREATE, UPDATE))
def hits(m):
    def count(sender, instance, **kwargs):
        sender.objects.filter(pk=instance.pk).update(hits=F("hits") + 1)
        m.calls.append(instance.name)

    return [(pre_save, m.Item, count)]


@case(
    "a save() inside the receiver",
    letter="i",
    kinds=(CREATE, UPDATE),
    values={"price": F("price") + 1},
)
def save_inside(m):
    def save_first(sender, instance, **kwargs):
        if not getattr(instance, "is_saving", False):
            instance.is_saving = True
            instance.note = f"{instance.note}saved "
            instance.save()
            instance.is_saving = False

    return [(pre_save, m.Item, save_first)]


@case("a save() of what is stored, after the write", letter="i", kinds=(CREATE, UPDATE))
def save_after(m):
    def save_again(sender, instance, created, **kwargs):
        if created or instance.note == "":
            instance.note = "saved"
            instance.save()

    return [(post_save, m.Item, save_again)]


@case(
    "what update_fields says",
    letter="j",
    kinds=(UPDATE,),
    row=lambda m, n: {"name": f"row {n}", "price": 5, "position": n},
    values={"price": 5, "position": 0},
    new=lambda n: {"price": 5 + n % 2, "position": 3},
)
def update_fields(m):
    def note(sender, instance, update_fields, signal, **kwargs):
        names = None if update_fields is None else tuple(sorted(update_fields))
        m.calls.append((signal is pre_save, instance.name, names))

    return [(pre_save, m.Item, note), (post_save, m.Item, note)]


@case(
    "a total that bulk_update() does not name",
    letter="r",
    kinds=(CREATE, UPDATE),
    row=lambda m, n: {"name": f"row {n}", "quantity": n},
    values={"price": F("price") + 2},
)
def total(m):
    def multiply(sender, instance, **kwargs):
        instance.total = instance.price * instance.quantity

    return [(pre_save, m.Item, multiply)]


@case(
    "a condition on what another receiver assigns",
    letter="g",
    kinds=(CREATE, UPDATE),
    row=lambda m, n: {"name": f"row {n}", "price": n % 4},
    values={"price": 5},
    new=lambda n: {"price": 3 + n % 4},
)
def conditional(m):
    is_paid = Q(new__state="paid") & ~Q(old__state="paid")

    def pay(sender, instance, **kwargs):
        stored = sender.objects.filter(pk=instance.pk).first()
        instance.was = stored.state if stored else None
        if instance.price > 2:
            instance.state = "paid"

    def note(sender, instance, **kwargs):
        # The plain receiver has no condition.
        if instance.state == "paid" and instance.was != "paid":
            m.log(f"{instance.name} is paid")

    return [(pre_save, m.Item, pay), (post_save, m.Item, note, {"when": is_paid})]


@case("everything that is said of a deletion", kinds=(DELETE,))
def deletion(m):
    def before(sender, instance, **kwargs):
        m.calls.append(("before", instance.name, sender.objects.filter(pk=instance.pk).exists()))

    def after(sender, instance, **kwargs):
        m.calls.append(("after", instance.name, sender.objects.filter(pk=instance.pk).exists()))

    return [(pre_delete, m.Item, before), (post_delete, m.Item, after)]
