"""Our own objects are checked before they are used: another role may have made some of their names."""

import pytest

from bulksafe.outbox import shape

pytestmark = pytest.mark.django_db


def test_the_migrations_create_what_the_list_says():
    """``python -m tests.migration.own_objects`` writes the list anew."""
    assert list(shape.differences("default", "public")) == []
    assert list(shape.strangers("default", "public")) == []
    assert list(shape.shadows("default", "public")) == []
    assert len(shape.expected()) > 150
