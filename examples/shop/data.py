"""Realistic data for the shop, the same in every run.

The functions take the module of the models, so that they fill ``examples.shop.models`` and
``examples.shop_signals.models`` alike. Instances come unsaved and obey every rule; computed
columns are left to whatever computes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from types import ModuleType
from typing import Any

SEED = 20_250_101
BATCH = 2_000
OPENED = datetime(2024, 1, 1, tzinfo=UTC)

GIVEN_NAMES = "Ada Grace Alan Edsger Barbara Donald Frances Ken Radia Niklaus Hedy Tim".split()
FAMILY_NAMES = "Okafor Lindqvist Moreau Tanaka Novak Haddad Silva Kowalski Byrne Ito".split()
ADJECTIVES = "Oak Steel Linen Ceramic Walnut Brass Wool Cork Glass Leather".split()
GOODS = "Desk Lamp Chair Mug Shelf Rug Bowl Clock Tray Vase Stool Basket".split()


@dataclass(frozen=True)
class Size:
    """How many rows to make; an order has two and a half lines on average."""

    customers: int = 2_000
    products: int = 500
    orders: int = 10_000

    @property
    def rows(self) -> int:
        """How many rows that is in all tables, lines being as many as they are on average."""
        return self.customers + self.products + self.orders * 11 // 2


@dataclass(frozen=True)
class Basket:
    """An order that is not saved yet, with its lines."""

    order: Any
    lines: Sequence[Any]


def customers(models: ModuleType, count: int) -> Iterator[Any]:
    chance = random.Random(SEED)
    for number in range(1, count + 1):
        given, family = chance.choice(GIVEN_NAMES), chance.choice(FAMILY_NAMES)
        yield models.Customer(
            name=f"{given} {family}",
            email=f"{given}.{family}.{number}@Example.com",
            credit_limit=Decimal(chance.randrange(5, 200) * 1_000),
        )


def products(models: ModuleType, count: int) -> Iterator[Any]:
    chance = random.Random(SEED + 1)
    for number in range(1, count + 1):
        yield models.Product(
            sku=f"P-{number:06}",
            name=f"{chance.choice(ADJECTIVES)} {chance.choice(GOODS)}",
            price=Decimal(chance.randrange(495, 49_995)) / 100,
            stock=chance.randrange(0, 1_000),
        )


def baskets(
    models: ModuleType, customers: Sequence[Any], products: Sequence[Any], count: int
) -> Iterator[Basket]:
    """Yield draft orders of saved customers for saved products, ten minutes apart on average."""
    chance = random.Random(SEED + 2)
    placed_at = OPENED
    for number in range(1, count + 1):
        placed_at += timedelta(seconds=chance.randrange(1_200))
        order = models.Order(
            number=f"O-{number:08}", customer=chance.choice(customers), placed_at=placed_at
        )
        lines = [
            models.OrderLine(
                order=order,
                product=product,
                quantity=chance.randint(1, 5),
                unit_price=product.price,
            )
            for product in chance.choices(products, k=chance.randint(1, 4))
        ]
        order.amount = sum(line.quantity * line.unit_price for line in lines)
        order.discount = _discount(chance, order.amount)
        yield Basket(order, lines)


def ledger_entries(models: ModuleType, orders: Sequence[Any]) -> Iterator[Any]:
    """Yield the two entries of each order: the customer owes, the shop has earned."""
    for order in orders:
        for account, kind in (("receivables", "debit"), ("sales", "credit")):
            yield models.LedgerEntry(
                account=account,
                kind=kind,
                amount=order.amount - order.discount,
                reference=order.number,
                booked_at=order.placed_at,
            )


def load(
    models: ModuleType, size: Size | None = None, advance: Callable[[int], None] = lambda rows: None
) -> None:
    """Fill the empty shop in bulk, about 57,000 rows by default, and move its orders on.

    ``advance`` is called with the number of rows stored, batch by batch.
    """
    size = size or Size()

    def store(model: Any, instances: Iterable[Any]) -> list[Any]:
        stored = []
        for batch in _batches(instances):
            stored += model.objects.bulk_create(batch)
            advance(len(batch))
        return stored

    buyers = store(models.Customer, customers(models, size.customers))
    goods = store(models.Product, products(models, size.products))
    made = list(baskets(models, buyers, goods, size.orders))
    orders = store(models.Order, (basket.order for basket in made))
    store(models.OrderLine, (line for basket in made for line in basket.lines))
    store(models.LedgerEntry, ledger_entries(models, orders))
    _process(models)


def _batches(instances: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(instances)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _discount(chance: random.Random, amount: Decimal) -> Decimal:
    """Every fifth order has one, of 5 to 20 per cent."""
    percent = chance.choice([0, 0, 0, 0, chance.choice([5, 10, 15, 20])])
    return (amount * percent / 100).quantize(Decimal("0.01"))


def _process(models: ModuleType) -> None:
    """Of ten orders eight are paid and six of these shipped and booked; one is cancelled."""
    orders = models.Order.objects
    orders.filter(number__regex="[0-7]$").update(status="paid")
    orders.filter(number__regex="[0-5]$").update(
        status="shipped", shipped_at=OPENED + timedelta(days=365)
    )
    orders.filter(number__endswith="8").update(status="cancelled")
    models.LedgerEntry.objects.filter(reference__regex="[0-5]$").update(closed=True)
