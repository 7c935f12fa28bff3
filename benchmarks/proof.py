"""Verifies that a variant enforces its rules: rules that do not hold cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, models, transaction

from benchmarks.database import empty, model_of
from benchmarks.variants import VARIANTS, Variant

LEGAL = {"number": "A-1", "status": "draft", "amount": Decimal("100"), "discount": Decimal("5")}

Write = Callable[[type[models.Model]], Any]


class RuleNotKeptError(RuntimeError):
    """A variant does not enforce its rules, or enforces others."""


def prove(variants: list[Variant] = VARIANTS) -> dict[str, list[str]]:
    """Return the rules that each variant enforces.

    Raises:
        RuleNotKeptError: they are not the declared ones.
    """
    kept = {variant.key: kept_rules(variant) for variant in variants}
    for variant in variants:
        if kept[variant.key] != variant.rules:
            raise RuleNotKeptError(
                f"The variant “{variant.label}” should keep {sorted(variant.rules)} "
                f"and keeps {sorted(kept[variant.key])}."
            )
    return {key: sorted(rules) for key, rules in kept.items()}


def kept_rules(variant: Variant) -> set[str]:
    """Try to break each rule, on the measured write path of the variant."""
    model = model_of(variant)
    insert, update = (_save_new, _save_stored) if variant.per_row else (_bulk_create, _update)
    attempts: dict[str, Write] = {
        "discount": lambda m: insert(m, discount=Decimal("101")),
        "shipped": lambda m: _ship_without_date(m, insert, update),
        "initial": lambda m: insert(m, status="paid"),
        "number": lambda m: update(m, number="B-1"),
        "status": lambda m: update(m, status="elsewhere"),
    }
    kept = {rule for rule, write in attempts.items() if _refused(model, write)}
    if _computes(model, insert, update):
        kept.add("net")
    empty(model)
    return kept


def _refused(model: type[models.Model], write: Write) -> bool:
    """Whether the write is refused, after a legal row was accepted."""
    empty(model)
    _save_new(model)
    try:
        with transaction.atomic():
            write(model)
    except IntegrityError:
        return True
    return False


def _computes(model: type[models.Model], insert: Callable, update: Callable) -> bool:
    """Whether ``net`` is right after an insert and after an update, whatever is written to it."""
    empty(model)
    insert(model, net=Decimal("1"))
    inserted = _net(model) == Decimal("95")
    update(model, amount=Decimal("50"), net=Decimal("1"))
    return inserted and _net(model) == Decimal("45")


def _net(model: type[models.Model]) -> Decimal:
    return model.objects.values_list("net", flat=True).get()


def _ship_without_date(model: type[models.Model], insert: Callable, update: Callable) -> None:
    """By an allowed transition, so that only the rule about the date is broken."""
    update(model, status="paid")
    update(model, status="shipped")


def _bulk_create(model: type[models.Model], **values: Any) -> None:
    model.objects.bulk_create([model(**LEGAL | values)])


def _update(model: type[models.Model], **values: Any) -> None:
    model.objects.update(**values)


def _save_new(model: type[models.Model], **values: Any) -> None:
    model(**LEGAL | values).save()


def _save_stored(model: type[models.Model], **values: Any) -> None:
    stored = model.objects.get()
    for name, value in values.items():
        setattr(stored, name, value)
    stored.save()
