"""Many-to-many links."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import pytest
from django.db import (
    transaction,
)
from django.db.models.signals import (
    m2m_changed,
)

from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalTag as Tag
from tests.integration import inline_committed as inline

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def test_links_in_every_environment(clean):
    actions = []

    def receive(action, pk_set, **kwargs):
        actions.append((action, sorted(pk_set or ())))

    inline.critical(m2m_changed, Book.tags.through, receive)
    book = Book.objects.create(title="a")
    one, other = (Tag.objects.create(name=name) for name in "ab")

    with transaction.atomic():
        book.tags.add(one)
        with pytest.raises(ValueError, match="no"), transaction.atomic():
            book.tags.add(other)
            raise ValueError("no")
    book.tags.set([other])

    assert actions == [
        ("pre_add", [one.pk]),
        ("post_add", [one.pk]),
        ("pre_add", [other.pk]),
        ("post_add", [other.pk]),
        ("pre_remove", [one.pk]),
        ("post_remove", [one.pk]),
        ("pre_add", [other.pk]),
        ("post_add", [other.pk]),
    ]
    assert list(book.tags.all()) == [other]
