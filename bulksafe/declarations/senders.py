"""The models that the ``sender`` of a receiver stands for."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import models


def resolve(sender: Any) -> list[type[models.Model]]:
    """The concrete models that ``sender`` stands for: none if it is unknown or has no table."""
    model: Any = sender
    if isinstance(sender, str):
        if sender.count(".") != 1:
            return []
        try:
            model = apps.get_model(sender)
        except LookupError:
            return []
    if not (isinstance(model, type) and issubclass(model, models.Model)):
        return []
    if model is models.Model:
        return []
    if model._meta.abstract:
        return [
            child
            for child in apps.get_models(include_auto_created=True)
            if issubclass(child, model) and _has_table(child) and not child._meta.proxy
        ]
    concrete = model._meta.concrete_model
    return [concrete] if concrete is not None and _has_table(concrete) else []


def is_abstract(sender: Any) -> bool:
    meta = getattr(sender, "_meta", None)
    return meta is not None and bool(meta.abstract)


def _has_table(model: type[models.Model]) -> bool:
    return bool(model._meta.managed and not model._meta.swapped and not model._meta.abstract)


def label_of_sender(sender: Any) -> str:
    meta = getattr(sender, "_meta", None)
    return str(sender) if meta is None else str(meta.label)
