"""The tables that a row lies in: several with multi-table inheritance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.db.models import Model


def lineage(model: type[Model]) -> list[type[Model]]:
    """The models whose tables a row of ``model`` lies in: its own and those of its parents."""
    return [model, *(parent for parent in model._meta.all_parents if not parent._meta.proxy)]
