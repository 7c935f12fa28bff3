"""Documents with a UUID as the key: files, renditions, quotas, an index."""

import hashlib
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Sum
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, practice
from tests.acceptance.pairs.practices.accounts import accounts

OF_DOCUMENTS = {
    "model": "Document",
    "setup": accounts,
    "key": lambda n: UUID(int=900 - n),
    "row": lambda m, n: {
        "id": UUID(int=500 + n * 7 % 10),
        "owner_id": 101 + n % 2,
        "title": f"Document {n}",
        "file": f"documents/{n}.pdf",
        "size": 10 * n,
    },
    "values": {"file": "documents/new.pdf"},
    "new": lambda n: {"file": f"documents/{n // 2}.pdf"},
}


@practice("the file leaves with its row", **OF_DOCUMENTS)
def file_of_a_deleted_row(m):
    def delete_file(sender, instance, **kwargs):
        if instance.file:
            instance.file.delete(save=False)

    return [(post_delete, m.Document, delete_file)]


@practice("the old file is deleted after the commit", **OF_DOCUMENTS)
def replaced_file(m):
    def compare(sender, instance, **kwargs):
        if not instance.pk:
            return
        try:
            old_file = sender.objects.get(pk=instance.pk).file
        except sender.DoesNotExist:
            return
        if old_file and old_file != instance.file:
            name = old_file.name
            transaction.on_commit(lambda: old_file.storage.delete(name))

    return [(pre_save, m.Document, compare)]


@practice("a checksum of the file", **OF_DOCUMENTS | {"kinds": (CREATE, UPDATE)})
def checksum(m):
    def compute(sender, instance, **kwargs):
        instance.checksum = hashlib.md5(instance.file.name.encode()).hexdigest()
        if instance._state.adding:
            instance.size += len(instance.file.name)

    return [(pre_save, m.Document, compute)]


@practice("renditions are rendered again", **OF_DOCUMENTS)
def renditions(m):
    def render(sender, instance, created, update_fields, **kwargs):
        if update_fields and "file" not in update_fields:
            return
        instance.renditions.all().delete()
        m.Rendition.objects.bulk_create(
            m.Rendition(document=instance, width=width, name=f"{width}-{instance.file.name}")
            for width in (80, 320)
        )

    return [(post_save, m.Document, render)]


def _quota(m, limit):
    def refuse(sender, instance, **kwargs):
        others = instance.owner.documents.exclude(pk=instance.pk)
        used = others.aggregate(used=Sum("size"))["used"] or 0
        if used + instance.size > limit:
            raise ValidationError({"size": f"{used} of {limit} are used."})

    return [(pre_save, m.Document, refuse)]


@practice("the quota of the owner, for new documents", **OF_DOCUMENTS | {"kinds": (CREATE,)})
def quota_of_new_rows(m):
    return _quota(m, 110)


@practice(
    "the quota of the owner, for larger documents",
    **OF_DOCUMENTS
    | {
        "values": {"size": F("size") + 25},
        "new": lambda n: {"size": 25 + n},
        "kinds": (UPDATE,),
    },
)
def quota_of_changed_rows(m):
    return _quota(m, 120)


@practice(
    "the owner's use, by the difference",
    **OF_DOCUMENTS
    | {
        "values": {"size": F("size") + 5},
        "new": lambda n: {"size": 100 + n},
    },
)
def used(m):
    def remember(sender, instance, **kwargs):
        stored = sender.objects.filter(pk=instance.pk).values_list("size", flat=True)
        instance._size_before = stored.first() or 0

    def book(sender, instance, **kwargs):
        profile, _ = m.Profile.objects.get_or_create(account=instance.owner)
        profile.visits = F("visits") + instance.size - instance._size_before
        profile.save(update_fields=["visits"])

    def give_back(sender, instance, **kwargs):
        m.Profile.objects.filter(account_id=instance.owner_id).update(
            visits=F("visits") - instance.size
        )

    return [
        (pre_save, m.Document, remember),
        (post_save, m.Document, book),
        (pre_delete, m.Document, give_back),
    ]


@practice("an index that update_or_create() keeps", **OF_DOCUMENTS)
def indexed(m):
    def index(sender, instance, **kwargs):
        m.Setting.objects.update_or_create(
            account=instance.owner, key=instance.title, defaults={"value": instance.file.name}
        )

    def remove(sender, instance, **kwargs):
        m.Setting.objects.filter(account=instance.owner, key=instance.title).delete()

    return [(post_save, m.Document, index), (post_delete, m.Document, remove)]


@practice("the other documents with the same file", **OF_DOCUMENTS | {"kinds": (CREATE, UPDATE)})
def same_file(m):
    def share(sender, instance, **kwargs):
        twins = list(sender.objects.filter(file=instance.file.name).exclude(pk=instance.pk))
        for twin in twins:
            twin.checksum = f"shared by {len(twins) + 1}"
        sender.objects.bulk_update(twins, ["checksum"])
        m.log(f"{instance.title} {len(twins)}")

    return [(post_save, m.Document, share)]


@practice("created, although the key is set", **OF_DOCUMENTS)
def created(m):
    def note(sender, instance, created, **kwargs):
        m.log(f"{instance.title} {created} {instance._state.adding}")

    def before(sender, instance, **kwargs):
        if instance._state.adding:
            instance.title = f"{instance.title} (new)"

    return [(pre_save, m.Document, before), (post_save, m.Document, note)]


@practice("the owner's settings list the titles", **OF_DOCUMENTS | {"kinds": (CREATE, DELETE)})
def listed_titles(m):
    def add(sender, instance, created, **kwargs):
        if created:
            with transaction.atomic():
                profile, _ = m.Profile.objects.select_for_update().get_or_create(
                    account_id=instance.owner_id
                )
                profile.settings["last"] = instance.title
                profile.settings.setdefault("titles", []).append(instance.title)
                profile.save()

    def forget(sender, instance, **kwargs):
        profile = instance.owner.profile
        profile.settings["titles"].remove(instance.title)
        profile.save(update_fields=["settings"])

    return [(post_save, m.Document, add), (post_delete, m.Document, forget)]
