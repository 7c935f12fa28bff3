"""A site: pages in a tree, comments in threads, files."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.files.storage import Storage
from django.db import models

from tests.apps.pairs.definitions.accounts import now


class Files(Storage):
    """Notes which files are deleted."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def delete(self, name: str) -> None:
        self.calls.append(("deleted", name))


class LiveRows(models.Manager):
    """Hides what is deleted softly."""

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(is_deleted=False)


def define(label: str) -> None:
    class Label(models.Model):
        name = models.CharField(max_length=40, unique=True)
        used = models.IntegerField(default=0)

        class Meta:
            app_label = label

    class Page(models.Model):
        STATES = [("draft", "Draft"), ("review", "In review"), ("published", "Published")]

        code = models.IntegerField(unique=True, null=True)
        parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")
        author = models.ForeignKey("Account", models.SET_NULL, null=True, related_name="pages")
        title = models.CharField(max_length=80)
        slug = models.SlugField(max_length=160, blank=True, default="")
        path = models.CharField(max_length=200, blank=True, default="")
        level = models.PositiveSmallIntegerField(default=0)
        body = models.TextField(blank=True, default="")
        excerpt = models.CharField(max_length=40, blank=True, default="")
        words = models.IntegerField(default=0)
        search = models.TextField(blank=True, default="")
        status = models.CharField(max_length=20, choices=STATES, default="draft")
        published_at = models.DateTimeField(null=True, blank=True)
        last_activity = models.DateTimeField(null=True, blank=True)
        comment_count = models.IntegerField(default=0)
        is_locked = models.BooleanField(default=False)
        keywords = ArrayField(models.CharField(max_length=40), blank=True, default=list)
        labels = models.ManyToManyField(Label, related_name="pages")

        class Meta:
            app_label = label
            ordering = ["-title"]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.status_before = self.__dict__.get("status")

    class PublishedPage(Page):
        class Meta:
            app_label = label
            proxy = True

    class Revision(models.Model):
        page = models.ForeignKey(Page, models.CASCADE, related_name="revisions")
        number = models.IntegerField()
        content = models.JSONField(default=dict)

        class Meta:
            app_label = label
            unique_together = [("page", "number")]

    class Follow(models.Model):
        account = models.ForeignKey("Account", models.CASCADE, related_name="follows")
        page = models.ForeignKey(Page, models.CASCADE, related_name="followers")

        class Meta:
            app_label = label
            unique_together = [("account", "page")]

    class Comment(models.Model):
        code = models.IntegerField(unique=True, null=True)
        page = models.ForeignKey(Page, models.CASCADE, related_name="comments")
        author = models.ForeignKey("Account", models.SET_NULL, null=True, related_name="comments")
        parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="replies")
        text = models.TextField(default="")
        replies_count = models.IntegerField(default=0)
        is_approved = models.BooleanField(default=False)
        is_deleted = models.BooleanField(default=False)
        deleted_at = models.DateTimeField(null=True)
        created = models.DateTimeField(default=now)

        objects = LiveRows()

        class Meta:
            app_label = label
            ordering = ["-created"]

    class Document(models.Model):
        id = models.UUIDField(primary_key=True, default=uuid.uuid4)
        code = models.IntegerField(unique=True, null=True)
        owner = models.ForeignKey("Account", models.CASCADE, null=True, related_name="documents")
        title = models.CharField(max_length=80, default="")
        file = models.FileField(upload_to="documents", storage=Files(), default="")
        size = models.BigIntegerField(default=0)
        checksum = models.CharField(max_length=64, default="")

        class Meta:
            app_label = label

    class Rendition(models.Model):
        document = models.ForeignKey(Document, models.CASCADE, related_name="renditions")
        width = models.IntegerField()
        name = models.CharField(max_length=120)

        class Meta:
            app_label = label
