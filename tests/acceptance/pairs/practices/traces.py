"""Traces of page changes: labels, activities, revisions, an audit log, a cache."""

from django.contrib.contenttypes.models import ContentType
from django.db.models import F
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.forms.models import model_to_dict

from tests.acceptance.pairs.case import CREATE, UPDATE, practice
from tests.acceptance.pairs.practices.pages import OF_PAGES, STATES, root


def labelled(m):
    root(m)
    for n in (101, 102, 103):
        m.Label.objects.create(pk=n, name=f"label {n}")


@practice(
    "search text from fields, labels and the author",
    **OF_PAGES
    | {
        "setup": labelled,
        "kinds": (CREATE, UPDATE),
    },
)
def search_text(m):
    def index(page):
        labels = page.labels.order_by("name").values_list("name", flat=True)
        author = page.author.username if page.author else ""
        text = " ".join([page.title, author, *labels]).lower()
        m.Page.objects.filter(pk=page.pk).update(search=text)

    def saved(sender, instance, created, **kwargs):
        if created:
            instance.labels.set(m.Label.objects.filter(pk__lte=102))
        index(instance)

    def relabelled(sender, instance, action, reverse, **kwargs):
        if action.startswith("post_") and not reverse:
            index(instance)

    return [(post_save, m.Page, saved), (m2m_changed, m.Page.labels.through, relabelled)]


@practice("labels count the pages that they are on", **OF_PAGES | {"setup": labelled})
def label_counts(m):
    def from_keywords(sender, instance, **kwargs):
        kept = m.Label.objects.filter(name__endswith=f"{101 + len(instance.title) % 3}")
        instance.labels.remove(*instance.labels.exclude(pk__in=kept))
        instance.labels.add(*kept)

    def count(sender, action, pk_set, **kwargs):
        step = {"post_add": 1, "post_remove": -1}.get(action)
        if step:
            m.Label.objects.filter(pk__in=pk_set).update(used=F("used") + step)

    def uncount(sender, instance, **kwargs):
        instance.labels.update(used=F("used") - 1)

    return [
        (post_save, m.Page, from_keywords),
        (pre_delete, m.Page, uncount),
        (m2m_changed, m.Page.labels.through, count),
    ]


@practice("a stream of activities about any model", **OF_PAGES)
def activities(m):
    def saved(sender, instance, created, **kwargs):
        m.Activity.objects.create(
            target=instance,
            verb="created" if created else "changed",
            data={"title": instance.title},
        )

    def deleted(sender, instance, **kwargs):
        of_type = ContentType.objects.get_for_model(instance)
        m.Activity.objects.filter(content_type=of_type, object_id=str(instance.pk)).delete()
        m.Activity.objects.create(
            content_type=of_type, object_id="", verb=f"deleted {instance}"[:7]
        )

    return [(post_save, m.Page, saved), (pre_delete, m.Page, deleted)]


@practice("an audit log of what differs", **OF_PAGES)
def audit(m):
    fields = ["title", "slug", "status", "parent", "keywords"]

    def remember(sender, instance, **kwargs):
        old = sender.objects.filter(pk=instance.pk).first() if instance.pk else None
        instance._before = model_to_dict(old, fields) if old else {}

    def write(sender, instance, created, **kwargs):
        after = model_to_dict(instance, fields)
        diff = {k: [instance._before.get(k), v] for k, v in after.items()}
        diff = {k: v for k, v in diff.items() if v[0] != v[1]}
        if diff:
            m.log(f"{'created' if created else 'changed'} {sorted(diff.items())}")

    def removed(sender, instance, **kwargs):
        m.log(f"deleted {model_to_dict(instance, fields)}")

    return [
        (pre_save, m.Page, remember),
        (post_save, m.Page, write),
        (post_delete, m.Page, removed),
    ]


@practice("numbered revisions, of which two are kept", **OF_PAGES)
def revisions(m):
    def keep(sender, instance, **kwargs):
        last = instance.revisions.order_by("-number").first()
        content = {"title": instance.title, "body": instance.body}
        if last and last.content == content:
            return
        number = last.number + 1 if last else 1
        m.Revision.objects.create(page=instance, number=number, content=content)
        kept = instance.revisions.order_by("-number").values_list("pk", flat=True)[:2]
        instance.revisions.exclude(pk__in=list(kept)).delete()

    return [(post_save, m.Page, keep)]


@practice("the cache of a page and of its ancestors", **OF_PAGES)
def cache(m):
    def invalidate(sender, instance, **kwargs):
        page = instance
        while page is not None:
            m.calls.append(("delete", f"page:{page.slug}"))
            page = sender.objects.filter(pk=page.parent_id).first()

    return [(post_save, m.Page, invalidate), (post_delete, m.Page, invalidate)]


@practice("a receiver of the proxy", **STATES | {"model": "PublishedPage"})
def proxy(m):
    def note(sender, instance, created, **kwargs):
        m.log(f"{created} {instance.title} {instance.status}")

    return [(post_save, m.PublishedPage, note)]
