"""Resolves the ``sender`` of a receiver to models."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.apps import apps
from django.db import models

from bulksafe.declarations.through import links


@dataclass(frozen=True)
class ModelsOf:
    """All models of some apps, looked up when they are loaded.

    Attributes:
        app_labels: the labels of the apps.
    """

    app_labels: tuple[str, ...]

    def __str__(self) -> str:
        return "+".join(f"{label}.*" for label in self.app_labels)

    def models(self, *, are_links: bool) -> list[type[models.Model]]:
        """The models with a table.

        Args:
            are_links: return the many-to-many through models, automatic ones too, instead of the
                models that send ``post_save``.
        """
        return [
            model
            for model in apps.get_models(include_auto_created=are_links)
            if model._meta.app_label in self.app_labels
            and not model._meta.proxy
            and _has_table(model)
            and (not are_links or links(model) is not None)
        ]


def models_of(*app_labels: str) -> ModelsOf:
    """``sender=bulksafe.models_of("shop", "crm")``: every model of these apps.

    For ``m2m_changed``, that is every many-to-many table of theirs. Models added to the apps later
    are included: ``makemigrations`` adds their captures.

    Raises:
        TypeError: there is no label, or an argument is not a label.
    """
    if not app_labels or not all(isinstance(label, str) for label in app_labels):
        given = ", ".join(map(repr, app_labels))
        raise TypeError(
            f'models_of({given}): pass the labels of apps as text, like models_of("shop", "crm").'
        )
    return ModelsOf(app_labels)


#: What ``sender=`` takes: models, labels, all models of some apps, or several of these.
OneSender: TypeAlias = "type[models.Model] | str | ModelsOf"
Senders: TypeAlias = "OneSender | Iterable[OneSender] | None"


def listed_senders(given: object) -> tuple[Any, ...]:
    """The items of ``sender=``, which may be a single one. A set has no order that lasts."""
    if not isinstance(given, Iterable) or isinstance(given, str):
        return () if given is None else (given,)
    items = [item for item in given if item is not None]
    return tuple(sorted(items, key=label_of_sender) if isinstance(given, Set) else items)


def resolve(sender: object, *, are_links: bool = False) -> list[type[models.Model]]:
    """The concrete models of ``sender``; empty if it is unknown or has no table.

    Args:
        are_links: for all models of an app, return the many-to-many through models.
    """
    if isinstance(sender, ModelsOf):
        return sender.models(are_links=are_links)
    model = _named(sender) if isinstance(sender, str) else sender
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


def _named(label: str) -> type[models.Model] | None:
    """The model of a label, ``"shop.Order"``; None if there is none."""
    if label.count(".") != 1:
        return None
    try:
        return apps.get_model(label)
    except LookupError:
        return None


def _has_table(model: type[models.Model]) -> bool:
    return bool(model._meta.managed and not model._meta.swapped and not model._meta.abstract)


def label_of_sender(sender: object) -> str:
    meta = getattr(sender, "_meta", None)
    return str(sender) if meta is None else str(meta.label)
