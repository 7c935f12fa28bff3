"""Which invariants are declared, and on what."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import models
from pgtrigger import registry

from bulksafe.declarations.base import Invariant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.apps import AppConfig


@dataclass(frozen=True)
class Declared:
    """An invariant on the model that carries its triggers."""

    model: type[models.Model]
    invariant: Invariant

    @property
    def label(self) -> str:
        return label_of(self.model, self.invariant)


def label_of(model: type[models.Model], invariant: Invariant) -> str:
    """``"shop.Order:discount_within_amount"``, with the model that the user declared it for."""
    return f"{invariant.declared_for or model._meta.label}:{invariant.name}"


def declared() -> Iterator[Declared]:
    """All registered invariants, in the order of their registration."""
    registered: Any = registry.registered()
    for model, trigger in registered:
        if isinstance(trigger, Invariant):
            yield Declared(model, trigger)


#: Calls of ``register`` that could not be carried out, as (target, reason); for the system checks.
refused_targets: list[tuple[Any, str]] = []

#: The labels of the proxies that ``register`` made, in lower case.
carriers: set[str] = set()


def register(model: type[models.Model] | str, *invariants: Invariant, app_label: str = "") -> None:
    """Declare invariants on a model that is not yours, from your app's ``invariants.py``.

    The migration lands in your app: it creates a proxy of the model there, which has no table and
    no permissions, and adds the triggers through it. Automatic many-to-many through tables work
    too: ``bulksafe.register(Article.tags.through, …)``.

    Args:
        model: the model class or its label, ``"auth.User"``.
        *invariants: what must hold for its rows.
        app_label: the app that gets the migration; by default the one whose module calls.
    """
    app = apps.get_app_config(app_label) if app_label else _calling_app()
    target = _find(model)
    if isinstance(target, str):
        refused_targets.append((model, target))
        return
    if app is None:
        refused_targets.append((model, "the calling module belongs to no installed app"))
        return
    # makemigrations does not look at automatic through tables: they need a proxy at home, too.
    is_own = target._meta.app_label == app.label and not target._meta.auto_created
    carrier = target if is_own else _proxy(target, app)
    given: tuple[Any, ...] = invariants
    for invariant in given:
        if not isinstance(invariant, Invariant):
            refused_targets.append((model, f"{invariant!r} is not an invariant"))
            continue
        own = copy.copy(invariant)
        own.declared_for = target._meta.label
        own.register(carrier)


def _calling_app() -> AppConfig | None:
    module = sys._getframe(2).f_globals.get("__name__", "")
    return apps.get_containing_app_config(module)


def _find(model: type[models.Model] | str) -> type[models.Model] | str:
    """The model class, or the reason why there is none to put triggers on."""
    if isinstance(model, str):
        try:
            model = apps.get_model(model)
        except (LookupError, ValueError) as error:
            return str(error).rstrip(".")
    given: Any = model
    if not (isinstance(given, type) and issubclass(given, models.Model)):
        return "it is not a model"
    if model._meta.abstract:
        return "an abstract model has no table; put the invariants into its Meta.triggers"
    if model._meta.swapped:
        return f"it is swapped out for {model._meta.swapped}; register that one"
    return model


def _proxy(target: type[models.Model], app: AppConfig) -> type[models.Model]:
    """The proxy of ``target`` in ``app``, made at the first call."""
    owner = "".join(part.capitalize() for part in target._meta.app_label.split("_"))
    name = f"{owner}{target._meta.object_name}Invariants"
    if name.lower() in app.models:
        return app.get_model(name)
    meta = type(
        "Meta",
        (),
        {"proxy": True, "app_label": app.label, "default_permissions": (), "triggers": []},
    )
    proxy = type(name, (target,), {"__module__": app.name, "Meta": meta})
    carriers.add(proxy._meta.label_lower)
    return proxy
