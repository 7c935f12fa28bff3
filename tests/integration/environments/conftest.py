"""Databases in which commits are commits, and an article."""

from __future__ import annotations

import pytest

from tests.apps.practice.models import CriticalArticle as Article
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
)


@pytest.fixture
def article(clean) -> Article:  # noqa: F811
    return Article.objects.create(title="there")
