"""How PostgreSQL executes a capture: a plan that was made for one row serves for many."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models.signals import post_save

from bulksafe.writer.conflicts import Conflicts
from tests.apps.practice.models import CriticalArticle
from tests.integration import inline, reception

pytestmark = pytest.mark.django_db

#: A session keeps a plan for good after so many executions.
UNTIL_KEPT = 10


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


def plans_of(write):
    """The plans of the statements that a write leads to inside the server."""
    notices = []

    def keep(diagnostic):
        notices.append(diagnostic.message_primary)

    with connection.cursor() as cursor:
        cursor.execute("LOAD 'auto_explain'")
        cursor.execute("SET LOCAL auto_explain.log_min_duration = 0")
        cursor.execute("SET LOCAL auto_explain.log_nested_statements = on")
        cursor.execute("SET LOCAL client_min_messages = log")
    connection.connection.add_notice_handler(keep)
    try:
        write()
    finally:
        connection.connection.remove_notice_handler(keep)
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL auto_explain.log_min_duration = -1")
            cursor.execute("SET LOCAL client_min_messages = notice")
    return notices


@pytest.mark.parametrize(
    ("run", "table"),
    [("in_transaction", "bulksafe_buffer"), ("after_commit", "bulksafe_outbox")],
)
def test_old_and_new_rows_are_not_joined_by_nested_loops(run, table, monkeypatch):
    # All rows in one statement: the first one has nothing to teach.
    monkeypatch.setattr(Conflicts, "has_unknown", False)
    if run == "in_transaction":
        inline.critical(post_save, CriticalArticle)
    else:
        reception.listen(post_save, CriticalArticle)
    CriticalArticle.objects.bulk_create([CriticalArticle(title=str(n)) for n in range(50)])
    first = CriticalArticle.objects.first()
    for number in range(UNTIL_KEPT):
        first.amount = number
        first.save()

    plans = plans_of(lambda: CriticalArticle.objects.update(title="many"))

    (plan,) = [text for text in plans if f"INSERT INTO public.{table}" in text]
    assert "bulksafe_new" in plan
    assert "Hash Full Join" in plan or "Merge Full Join" in plan
