"""Fixtures for modules whose tests commit, and put the twin tables in order by themselves.

The tables are emptied by hand: a flush after each test would take a hundred times as long as the
test. Import both names into the test module.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance import twin_tables


@pytest.fixture(scope="module")
def committed(django_db_setup, django_db_blocker) -> Iterator[None]:
    """A database in which commits are commits, for all the tests of a module."""
    with django_db_blocker.unblock():
        yield
        twin_tables.empty()


@pytest.fixture
def _django_db_helper(committed) -> None:
    """Stands in for what pytest-django does to a test that is marked ``django_db``.

    The mark is needed all the same: without one no test database is made.
    """
