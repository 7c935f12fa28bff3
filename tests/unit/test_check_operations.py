"""The operations that a Check is for."""

import pgtrigger
import pytest
from django.db.models import Q

import bulksafe
from bulksafe.planning.rules import events_of
from tests.apps.columns.models import NamedLikeSQL

WRITES = [pgtrigger.Insert, pgtrigger.Update]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Q(new__gte=0), WRITES),
        # The model has a field of this name: it is a lookup of it, not of the old row.
        (Q(old__gte=0), WRITES),
        (Q(old=0), WRITES),
        (Q(old__old__gte=0), [pgtrigger.Update]),
        (Q(old__pk__gte=0), [pgtrigger.Update]),
    ],
    ids=["plain", "lookup", "exact", "old row", "key of the old row"],
)
def test_a_rule_is_for_updates_if_it_reads_the_old_row(condition, expected):
    check = bulksafe.Check(condition, name="rule")

    assert events_of(check, NamedLikeSQL) == expected
