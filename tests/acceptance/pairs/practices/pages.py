"""Pages: states and their times, slugs and paths of a tree, excerpts, search text."""

from django.core.exceptions import ValidationError
from django.db.models import Value
from django.db.models.functions import Concat, Substr
from django.db.models.signals import post_save, pre_delete, pre_save
from django.utils import timezone
from django.utils.text import slugify

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, TransitionNotAllowed, practice
from tests.acceptance.pairs.practices.accounts import accounts


def root(m):
    accounts(m)
    m.Page.objects.bulk_create(
        [
            m.Page(pk=101, title="Root", slug="root", path="/root/", author_id=102),
            m.Page(
                pk=102, title="Branch", slug="branch", path="/root/branch/", level=1, parent_id=101
            ),
            m.Page(pk=103, title="Other", slug="other", path="/other/"),
        ]
    )


OF_PAGES = {
    "model": "Page",
    "setup": root,
    "row": lambda m, n: {
        "title": f"Title {n}",
        "body": f"Some words {n} " * (n + 1),
        "parent_id": 101 + n % 2,
        "author_id": 101,
    },
    "values": {"title": "Renamed"},
    "new": lambda n: {"title": f"Renamed {n}"},
}
STATES = OF_PAGES | {
    "kinds": (CREATE, UPDATE),
    "row": lambda m, n: {"title": f"Title {n}", "status": ("draft", "published")[n % 2]},
    "values": {"status": "published"},
    "new": lambda n: {"status": ("review", "published")[n % 2]},
}


@practice("the time of publication, by a snapshot of __init__", **STATES)
def published_at(m):
    def stamp(sender, instance, **kwargs):
        if instance.status == "published" and instance.status_before != "published":
            instance.published_at = timezone.now()

    def note(sender, instance, created, **kwargs):
        if not created and instance.status != instance.status_before:
            m.log(f"{instance.title}: {instance.status_before} -> {instance.status}")
        instance.status_before = instance.status

    return [(pre_save, m.Page, stamp), (post_save, m.Page, note)]


@practice(
    "a state that may not follow",
    **STATES
    | {
        "values": {"status": "review"},
        "new": lambda n: {"status": ("published", "review")[n % 2]},
        "kinds": (UPDATE,),
    },
)
def transitions(m):
    allowed = {"draft": {"review", "published"}, "review": {"published"}, "published": set()}

    def refuse(sender, instance, **kwargs):
        old = sender.objects.filter(pk=instance.pk).values_list("status", flat=True).first()
        if old and old != instance.status and instance.status not in allowed[old]:
            raise TransitionNotAllowed(f"{old} to {instance.status}")

    return [(pre_save, m.Page, refuse)]


@practice(
    "published pages are frozen",
    **STATES
    | {
        "kinds": (UPDATE, DELETE),
        "values": {"title": "New"},
        "new": lambda n: {"title": f"New {n}"},
    },
)
def frozen(m):
    def refuse(sender, instance, **kwargs):
        try:
            old = sender.objects.get(pk=instance.pk)
        except sender.DoesNotExist:
            return
        if old.status == "published":
            raise ValidationError("%(title)s is published.", params={"title": old.title})

    return [(pre_save, m.Page, refuse), (pre_delete, m.Page, refuse)]


@practice("the slug of the parent and its own", **OF_PAGES)
def slug_of_the_parent(m):
    def make_slug(sender, instance, **kwargs):
        own = slugify(instance.title)
        instance.slug = f"{instance.parent.slug}-{own}" if instance.parent else own

    return [(pre_save, m.Page, make_slug)]


TREE = OF_PAGES | {
    "row": lambda m, n: {
        "title": f"Title {n}",
        "slug": f"p{n}",
        "parent_id": (101, 102, None)[n % 3],
    },
    "values": {"parent": 103},
    "new": lambda n: {"parent_id": (103, None)[n % 2]},
}


def _place(m):
    def place(sender, instance, **kwargs):
        parent = instance.parent
        instance.path = f"{parent.path if parent else '/'}{instance.slug}/"
        instance.level = parent.level + 1 if parent else 0

    return place


@practice("path and level of a page in its tree", **TREE)
def tree_path(m):
    return [(pre_save, m.Page, _place(m))]


@practice(
    "the paths of all descendants, by update()",
    model="Page",
    kinds=(UPDATE,),
    # A chain: the key of each row is the position of the next.
    row=lambda m, n: {"title": f"Title {n}", "slug": f"p{n}", "parent_id": n or None},
    values={"slug": "moved"},
    new=lambda n: {"slug": f"moved-{n}"},
)
def descendants(m):
    place = _place(m)

    def move(sender, instance, **kwargs):
        stored = sender.objects.filter(pk=instance.pk)
        instance._old_path = stored.values_list("path", flat=True).first()
        place(sender, instance)

    def take_along(sender, instance, **kwargs):
        old = instance._old_path
        if old and old != instance.path:
            below = sender.objects.filter(path__startswith=old).exclude(pk=instance.pk)
            below.update(path=Concat(Value(instance.path), Substr("path", len(old) + 1)))

    return [(pre_save, m.Page, move), (post_save, m.Page, take_along)]


@practice(
    "an excerpt, unless only other fields are saved", **OF_PAGES | {"kinds": (CREATE, UPDATE)}
)
def excerpt(m):
    def cut(sender, instance, update_fields, **kwargs):
        if kwargs.get("raw") or (update_fields and "body" not in update_fields):
            return
        instance.excerpt = instance.body[:20]
        instance.words = len(instance.body.split())

    def note(sender, instance, update_fields=None, **kwargs):
        if update_fields and "title" not in update_fields:
            return
        m.log(f"{instance.title} {instance.words}")

    return [(pre_save, m.Page, cut), (post_save, m.Page, note, {"dispatch_uid": "pages.note"})]


@practice(
    "keywords without duplicates",
    **OF_PAGES
    | {
        "row": lambda m, n: {"title": f"Title {n}", "keywords": ["b", f"a{n}", "B ", "b"]},
        "values": {"keywords": ["z", "Y", "y"]},
        "new": lambda n: {"keywords": [f"k{n}", f"K{n}"]},
        "kinds": (CREATE, UPDATE),
    },
)
def keywords(m):
    def normalise(sender, instance, **kwargs):
        instance.keywords = sorted({word.strip().lower() for word in instance.keywords})

    return [(pre_save, m.Page, normalise)]
