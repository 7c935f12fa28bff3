"""The tables of a row: several with multi-table inheritance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.db.models import Model


def lineage(model: type[Model]) -> list[type[Model]]:
    """The models whose tables store a row of ``model``: itself and its parents."""
    return [model, *(parent for parent in model._meta.all_parents if not parent._meta.proxy)]
