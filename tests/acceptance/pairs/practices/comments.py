"""Comments: counters of the page, threads, moderation, followers, soft deletion."""

import re
from datetime import timedelta

from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, F, Max
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.utils import timezone

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, practice
from tests.acceptance.pairs.practices.accounts import accounts


def two_pages(m):
    accounts(m)
    for n in (101, 102):
        m.Page.objects.create(pk=n, title=f"Page {n}", author_id=103)


def comment_row(m, n):
    return {"page_id": 101 + n % 2, "author_id": 101 + n % 3, "text": f"text {n}"}


OF_COMMENTS = {
    "model": "Comment",
    "setup": two_pages,
    "row": comment_row,
    "values": {"text": "edited"},
    "new": lambda n: {"text": f"edited {n}"},
}
MOVED = OF_COMMENTS | {"values": {"page": 102}, "new": lambda n: {"page_id": 101 + n % 3 % 2}}
APPROVED = OF_COMMENTS | {
    "values": {"is_approved": True},
    "new": lambda n: {"is_approved": n % 2 == 0},
}


@practice("the page counts comments and notes the last", **OF_COMMENTS)
def last_activity(m):
    def add(sender, instance, created, **kwargs):
        if created:
            page = m.Page.objects.filter(pk=instance.page_id)
            page.update(comment_count=F("comment_count") + 1, last_activity=instance.created)

    def take(sender, instance, **kwargs):
        last = instance.page.comments.aggregate(last=Max("created"))["last"]
        page = m.Page.objects.filter(pk=instance.page_id)
        page.update(comment_count=F("comment_count") - 1, last_activity=last)

    return [(post_save, m.Comment, add), (post_delete, m.Comment, take)]


@practice("both pages count again when a comment moves", **MOVED)
def moved(m):
    def remember(sender, instance, **kwargs):
        instance._pages = {instance.page_id}
        if instance.pk:
            instance._pages |= set(
                sender.objects.filter(pk=instance.pk).values_list("page_id", flat=True)
            )

    def recount(sender, instance, **kwargs):
        pages = m.Page.objects.filter(pk__in=getattr(instance, "_pages", {instance.page_id}))
        for page in pages.annotate(found=Count("comments")):
            if page.comment_count != page.found:
                page.comment_count = page.found
                page.save(update_fields=["comment_count"])

    return [
        (pre_save, m.Comment, remember),
        (post_save, m.Comment, recount),
        (post_delete, m.Comment, recount),
    ]


@practice("only approved comments count", **APPROVED)
def approved_only(m):
    def count(sender, instance, **kwargs):
        approved = sender.objects.filter(page=instance.page, is_approved=True)
        m.Page.objects.filter(pk=instance.page.pk).update(comment_count=approved.count())

    return [(post_save, m.Comment, count), (post_delete, m.Comment, count)]


@practice(
    "each ancestor counts the replies",
    **OF_COMMENTS
    | {
        "setup": lambda m: [two_pages(m), thread(m)],
        "row": lambda m, n: comment_row(m, n) | {"parent_id": 101 + n % 2},
    },
)
def ancestors(m):
    def climb(instance, step):
        parent = m.Comment.objects.filter(pk=instance.parent_id).first()
        if parent is not None:
            parent.replies_count += step
            parent.save(update_fields=["replies_count"])
            climb(parent, step)

    def add(sender, instance, created, **kwargs):
        if created:
            climb(instance, 1)

    def take(sender, instance, **kwargs):
        climb(instance, -1)

    return [(post_save, m.Comment, add), (post_delete, m.Comment, take)]


def thread(m):
    first = m.Comment(pk=101, page_id=101, text="first")
    m.Comment.objects.bulk_create([first, m.Comment(pk=102, page_id=101, parent=first)])


@practice(
    "followers of the page are notified",
    **OF_COMMENTS
    | {
        "setup": lambda m: [
            two_pages(m),
            *(m.Follow.objects.create(account_id=101 + n, page_id=101 + n % 2) for n in range(3)),
        ],
    },
)
def followers(m):
    def notify(sender, instance, created, **kwargs):
        if not created:
            return
        following = instance.page.followers.exclude(account_id=instance.author_id)
        m.Notification.objects.bulk_create(
            m.Notification(account=follow.account, text=f"New: {instance.text}")
            for follow in following.select_related("account")
        )
        m.Follow.objects.get_or_create(account_id=instance.author_id, page=instance.page)

    return [(post_save, m.Comment, notify)]


@practice(
    "each mentioned account is notified once",
    **OF_COMMENTS
    | {
        "row": lambda m, n: comment_row(m, n) | {"text": f"@known{101 + n % 3} and @unknown"},
        "values": {"text": "@known103, @known101"},
        "new": lambda n: {"text": f"@known{101 + n % 4}"},
    },
)
def mentions(m):
    def notify(sender, instance, **kwargs):
        names = set(re.findall(r"@(\w+)", instance.text))
        for account in m.Account.objects.filter(username__in=names):
            text = f"{instance.author.username} mentioned you"
            m.Notification.objects.get_or_create(account=account, text=text)

    return [(post_save, m.Comment, notify)]


@practice(
    "no comments on a locked page",
    **MOVED
    | {
        "setup": lambda m: [two_pages(m), m.Page.objects.filter(pk=102).update(is_locked=True)],
        "row": lambda m, n: comment_row(m, n) | {"page_id": 101},
        "kinds": (UPDATE, DELETE),
    },
)
def locked(m):
    def refuse(sender, instance, **kwargs):
        if instance.page.is_locked:
            raise PermissionDenied(f"{instance.page.title} is locked.")

    return [(pre_save, m.Comment, refuse), (pre_delete, m.Comment, refuse)]


@practice("no more than two comments of an author", **OF_COMMENTS | {"kinds": (CREATE,)})
def rate_limit(m):
    def refuse(sender, instance, **kwargs):
        recent = sender.objects.filter(
            author=instance.author, created__gte=timezone.now() - timedelta(hours=1)
        )
        if not instance.pk and recent.count() >= 2:
            raise ValidationError("Slow down.", code="rate")

    return [(pre_save, m.Comment, refuse)]


@practice(
    "authors with an approved comment need no approval",
    **APPROVED
    | {
        "row": lambda m, n: comment_row(m, n) | {"author_id": 101, "is_approved": n == 2},
        "values": {"text": "again"},
        "new": lambda n: {"is_approved": n == 1},
        "kinds": (CREATE, UPDATE),
    },
)
def trusted(m):
    def approve(sender, instance, **kwargs):
        earlier = instance.author.comments.exclude(pk=instance.pk)
        instance.is_approved |= earlier.filter(is_approved=True).exists()

    return [(pre_save, m.Comment, approve)]


DELETED_SOFTLY = OF_COMMENTS | {
    "values": {"is_deleted": True},
    "new": lambda n: {"is_deleted": n % 2 == 0},
    "kinds": (UPDATE,),
}


@practice("when a comment was deleted softly", **DELETED_SOFTLY)
def deleted_at(m):
    def stamp(sender, instance, **kwargs):
        if instance.is_deleted and instance.deleted_at is None:
            instance.deleted_at = timezone.now()

    def count(sender, instance, **kwargs):
        live = sender.objects.filter(page_id=instance.page_id).count()
        m.Page.objects.filter(pk=instance.page_id).update(comment_count=live)

    return [(pre_save, m.Comment, stamp), (post_save, m.Comment, count)]


def replies(m):
    two_pages(m)
    m.Comment.objects.bulk_create(m.Comment(pk=100 + n, page_id=101, text="root") for n in (1, 2))


@practice(
    "replies are deleted softly with their comment",
    **DELETED_SOFTLY
    | {
        "setup": replies,
        "row": lambda m, n: comment_row(m, n) | {"parent_id": 101 + n % 2},
    },
)
def deleted_with_replies(m):
    def hide(sender, instance, **kwargs):
        if instance.is_deleted:
            for reply in instance.replies.filter(is_deleted=False):
                reply.is_deleted = True
                reply.save(update_fields=["is_deleted"])
                m.log(f"hidden: {reply.text}")

    return [(post_save, m.Comment, hide)]


@practice("read notifications leave with the comment", **OF_COMMENTS | {"kinds": (CREATE, DELETE)})
def cleaned_up(m):
    def note(sender, instance, created, **kwargs):
        if created:
            m.Notification.objects.create(account_id=103, text=instance.text)

    def clean(sender, instance, **kwargs):
        m.Notification.objects.filter(text=instance.text).delete()

    return [(post_save, m.Comment, note), (pre_delete, m.Comment, clean)]
