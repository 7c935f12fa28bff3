"""``bulksafe.testing`` in tests that never commit."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.db.models.signals import post_save

from bulksafe import testing
from tests.apps.columns.models import Nullable
from tests.integration import reception

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with reception.only_these():
        yield


def test_a_rollback_makes_changes_undelivered_again():
    """Each test of a ``TestCase`` begins with what ``setUpTestData`` has written."""
    calls = reception.listen(post_save, Nullable)
    Nullable.objects.create()

    for _ in "first test", "second test":
        with transaction.atomic():
            assert len(calls.delivered()) == 1
            assert calls.delivered() == []
            transaction.set_rollback(True)


def test_queues_are_delivered_independently():
    first = reception.declare(post_save, Nullable, "first", queue="first")
    second = reception.declare(post_save, Nullable, "second", queue="second")
    reception.capture(Nullable)
    Nullable.objects.create()

    assert testing.deliver(queues=["first"]) == 1
    assert testing.deliver(queues=["first"]) == 0
    assert testing.deliver() == 1
    assert (len(first), len(second)) == (1, 1)

    Nullable.objects.create()
    assert testing.deliver() == 2
    assert testing.deliver() == 0
