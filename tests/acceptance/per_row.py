"""The per-row equivalent of each bulk write, performed with plain signals.

This is the table “Per-row equivalents” of docs/per-row.md as code. Each function runs inside
one ``atomic()`` of the caller, on a model that has plain receivers or none.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save


def bulk_create(instances: Iterable[models.Model]) -> None:
    for instance in instances:
        instance.save(force_insert=instance.pk is not None)


def upsert(
    instances: Iterable[models.Model], unique_fields: Sequence[str], update_fields: Sequence[str]
) -> None:
    """``bulk_create(update_conflicts=True)``."""
    for instance in instances:
        manager = type(instance)._base_manager
        unique = {name: getattr(instance, name) for name in unique_fields}
        stored = manager.filter(**unique).first()
        if stored is None:
            instance.save(force_insert=instance.pk is not None)
            continue
        for name in update_fields:
            setattr(stored, name, getattr(instance, name))
        save_fields(stored, update_fields)


def insert_or_ignore(instances: Iterable[models.Model]) -> None:
    """``bulk_create(ignore_conflicts=True)``."""
    for instance in instances:
        try:
            with transaction.atomic():
                instance.save(force_insert=instance.pk is not None)
        except IntegrityError as error:
            # ON CONFLICT handles unique indexes and exclusion constraints.
            if error.__cause__.sqlstate not in {"23505", "23P01"}:
                raise


def bulk_update(instances: Iterable[models.Model], fields: Sequence[str]) -> None:
    for instance in instances:
        if type(instance)._base_manager.filter(pk=instance.pk).exists():
            save_fields(instance, fields)


def update(queryset: models.QuerySet[Any], **values: Any) -> int:
    """``QuerySet.update()``: returns the number of rows that the database says are updated."""
    count = 0
    for instance, new in _in_turn(queryset.model, _evaluated(queryset, values)):
        _assign(instance, new)
        count += save_fields(instance, list(values), keep_assigned=True)
    return count


def raw_update(queryset: models.QuerySet[Any], **values: Any) -> None:
    """A raw UPDATE of these rows."""
    for instance, new in _in_turn(queryset.model, _evaluated(queryset, values)):
        update_changed(instance, new)


def update_changed(instance: models.Model, new: Mapping[str, Any]) -> None:
    """One row of a raw UPDATE, or of a MERGE that found it."""
    attributes = {name: type(instance)._meta.get_field(name).attname for name in new}
    changed = [n for n, value in new.items() if getattr(instance, attributes[n]) != value]
    _assign(instance, new)
    save_fields(instance, changed, keep_assigned=True)


def raw_delete(queryset: models.QuerySet[Any]) -> None:
    """A raw DELETE of these rows, or ``_raw_delete()``: without the Collector."""
    model = queryset.model
    keys = list(queryset.order_by("pk").values_list("pk", flat=True))
    for instance, _ in _in_turn(model, {key: {} for key in keys}):
        common = {"sender": model, "instance": instance, "using": "default", "origin": instance}
        pre_delete.send(**common)
        row = model._base_manager.filter(pk=instance.pk)
        row._raw_delete(row.db)
        post_delete.send(**common)


def save_fields(
    instance: models.Model, fields: Sequence[str], *, keep_assigned: bool = False
) -> int:
    """``save(update_fields=fields)``, without the ``pre_save()`` of the fields.

    Args:
        keep_assigned: store what the receivers assign to other fields, too.

    Returns:
        the number of rows that were changed.
    """
    model = type(instance)
    common = {
        "sender": model,
        "instance": instance,
        "raw": False,
        "using": "default",
        "update_fields": frozenset(fields),
    }
    before = _values(instance)
    pre_save.send(**common)
    after = _values(instance)
    stored = {name for name in after if keep_assigned and after[name] != before[name]}
    stored |= {model._meta.get_field(name).attname for name in fields}
    count = 0
    if stored:
        row = model._base_manager.filter(pk=instance.pk)
        count = row.update(**{name: getattr(instance, name) for name in stored})
    post_save.send(**common, created=False)
    return count


def _evaluated(queryset: models.QuerySet[Any], values: Mapping[str, Any]) -> dict[Any, dict]:
    """The new values of all rows by key, before any row is written."""
    expressions = {n: v for n, v in values.items() if hasattr(v, "resolve_expression")}
    aliases = {f"new_{name}": value for name, value in expressions.items()}
    rows = queryset.annotate(**aliases).order_by("pk").values("pk", *aliases)
    return {
        row["pk"]: {n: row[f"new_{n}"] if n in expressions else v for n, v in values.items()}
        for row in rows
    }


def _in_turn(model: type[models.Model], found: Mapping[Any, dict]) -> Iterable[tuple[Any, dict]]:
    """Each row as it is stored when its turn comes; a row that is gone by then is skipped."""
    for key, new in found.items():
        instance = model._base_manager.filter(pk=key).first()
        if instance is not None:
            yield instance, new


def _assign(instance: models.Model, new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        field = type(instance)._meta.get_field(name)
        # Receivers may alter what a row holds, and each row has its own.
        own = copy.deepcopy(value) if isinstance(value, dict | list) else value
        setattr(instance, name if isinstance(value, models.Model) else field.attname, own)


def _values(instance: models.Model) -> dict[str, Any]:
    fields = type(instance)._meta.concrete_fields
    return {f.attname: copy.deepcopy(getattr(instance, f.attname)) for f in fields}
