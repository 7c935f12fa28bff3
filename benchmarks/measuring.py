"""Measures the times.

A round measures every operation on every variant once. The variants alternate, within a round and,
for ``bulk_create``, chunk by chunk, and each round begins with a different one, so that other load
on the machine affects all of them alike.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from time import perf_counter
from typing import Any

from django.db import models
from django.db.models import F

from benchmarks import database, variants
from benchmarks.timings import Timings
from benchmarks.variants import LARGE, VARIANTS, Variant

CHUNK = 10_000
BATCH = 5_000
SAVED_ROWS = 2_000
"""Rows that a round writes one by one; the time is reported per row."""

Progress = Callable[[str, int], None]


@dataclass
class Plan:
    """The rounds to measure, as the number of them by the number of rows."""

    rounds: dict[int, int]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (rows, round), the sizes evenly mixed over the whole run."""
        found = [(rows, number) for rows, total in self.rounds.items() for number in range(total)]
        return iter(sorted(found, key=lambda one: ((one[1] + 0.5) / self.rounds[one[0]], one[0])))

    @property
    def work(self) -> int:
        """Rows that all rounds write together."""
        return sum(work_of_round(rows) * total for rows, total in self.rounds.items())


def work_of_round(rows: int) -> int:
    bulk = len(bulk_variants(rows)) * len(variants.BULK_OPERATIONS) * rows
    return bulk + 2 * saved_rows(rows)


def bulk_variants(rows: int) -> list[Variant]:
    return [v for v in VARIANTS if not v.per_row and (v.large or rows <= LARGE)]


def saved_rows(rows: int) -> int:
    return 0 if rows > LARGE else min(rows, SAVED_ROWS)


@dataclass
class Measuring:
    """Measures rounds and puts the times into ``timings``.

    Attributes:
        progress: called with what was done and the number of rows written by it.
        log: called with a line for each round, for those who see no progress bar.
    """

    progress: Progress
    log: Callable[[str], None]
    timings: Timings = field(default_factory=Timings)

    def run(self, plan: Plan) -> Timings:
        for rows, number in plan:
            start = perf_counter()
            self.round(rows, number)
            self.log(
                f"{rows:,} rows: round {number + 1} of {plan.rounds[rows]} took "
                f"{perf_counter() - start:.1f} s"
            )
        return self.timings

    def round(self, rows: int, number: int) -> None:
        chosen = _rotated(bulk_variants(rows), number)
        self._bulk_create(rows, chosen)
        self._update(rows, chosen, variants.UPDATE_UNREAD, note=f"called {number}")
        self._update(rows, chosen, variants.UPDATE_INPUT, amount=F("amount") + 1)
        if saved := saved_rows(rows):
            self._save(rows, saved, variants.BY_KEY[variants.SIGNALS])
        for variant in chosen:
            database.empty(database.model_of(variant))
        database.checkpoint()

    def _bulk_create(self, rows: int, chosen: Sequence[Variant]) -> None:
        """Fill the tables of all variants side by side, a chunk into each in turn.

        The instances of one chunk are made once and sent again and again as new ones: making them
        is no part of the statement, and a million of them at once would take gigabytes.
        """
        seconds = dict.fromkeys(chosen, 0.0)
        made = {variant: new_orders(database.model_of(variant), CHUNK, rows) for variant in chosen}
        for number, start in enumerate(range(0, rows, CHUNK)):
            size = min(CHUNK, rows - start)
            for variant in _rotated(chosen, number):
                orders = made[variant][:size]
                forget(orders)
                seconds[variant] += _bulk_create_seconds(database.model_of(variant), orders)
                self._report(variants.BULK_CREATE, rows, variant, size)
        for variant, total in seconds.items():
            self.timings.add(rows, variants.BULK_CREATE, variant.key, total / rows)

    def _update(self, rows: int, chosen: Sequence[Variant], operation: str, **values: Any) -> None:
        for variant in chosen:
            model = database.model_of(variant)
            database.tidy(model)
            database.checkpoint()
            with measured() as elapsed:
                updated = model.objects.update(**values)
            if updated != rows:
                raise RuntimeError(f"{updated} rows of {rows} were updated in {variant.label}.")
            self.timings.add(rows, operation, variant.key, elapsed() / rows)
            self._report(operation, rows, variant, rows)

    def _save(self, rows: int, saved: int, variant: Variant) -> None:
        """Each row in a transaction of its own, as Django saves outside ``atomic``."""
        model = database.model_of(variant)
        database.empty(model)
        orders = new_orders(model, saved, rows)
        self._save_each(rows, variants.SAVE_INSERT, variant, orders)
        database.tidy(model)
        for order in orders:
            order.amount += 1
        self._save_each(rows, variants.SAVE_UPDATE, variant, orders)

    def _save_each(
        self, rows: int, operation: str, variant: Variant, orders: list[models.Model]
    ) -> None:
        with measured() as elapsed:
            for order in orders:
                order.save()
        self.timings.add(rows, operation, variant.key, elapsed() / len(orders))
        self._report(operation, rows, variant, len(orders))

    def _report(self, operation: str, rows: int, variant: Variant, written: int) -> None:
        self.progress(
            f"{rows:,} rows · {variants.OPERATIONS[operation]} · {variant.label}", written
        )


def new_orders(model: type[models.Model], size: int, rows: int) -> list[models.Model]:
    """Unsaved legal orders whose ``net`` is not computed yet."""
    return [
        model(
            number=f"SO-{number:08}",
            amount=Decimal(100 + number % 900),
            discount=Decimal(number % 100),
        )
        for number, _ in zip(count(1), range(min(size, rows)), strict=False)
    ]


def forget(orders: list[models.Model]) -> None:
    """Make stored instances new again."""
    for order in orders:
        order.pk = None
        order.net = Decimal(0)
        order._state.adding = True


def _bulk_create_seconds(model: type[models.Model], orders: list[models.Model]) -> float:
    with measured() as elapsed:
        model.objects.bulk_create(orders, batch_size=BATCH)
    return elapsed()


@contextmanager
def measured() -> Iterator[Callable[[], float]]:
    """Time the block without Python's garbage collector, whose runs depend on what was before."""
    gc.collect()
    gc.disable()
    start = perf_counter()
    stop = start
    try:
        yield lambda: stop - start
    finally:
        stop = perf_counter()
        gc.enable()


def _rotated(chosen: Sequence[Variant], by: int) -> list[Variant]:
    by %= len(chosen)
    return [*chosen[by:], *chosen[:by]]
