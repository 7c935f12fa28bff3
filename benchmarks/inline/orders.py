"""Rows as a project makes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, TypeVar

from benchmarks.inline.models import OrderTable

Order = TypeVar("Order", bound=OrderTable)


def values(number: int) -> dict[str, Any]:
    return {"number": f"SO-{number:08}", "amount": Decimal(100 + number % 900)}


def new_orders(model: type[Order], size: int) -> list[Order]:
    """Instances that are not stored yet and that no receiver refuses."""
    return [model(**values(number)) for number in range(size)]
