"""The registry of declared invariants."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.apps import apps
from django.db import models

from bulksafe.compat import registered
from bulksafe.declarations.base import Invariant
from bulksafe.declarations.capture import is_installed_package
from bulksafe.declarations.emit import Emit
from bulksafe.object_state import set_meta_triggers

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Declared:
    """An invariant on the model that carries its triggers."""

    model: type[models.Model]
    invariant: Invariant

    @property
    def label(self) -> str:
        return label_of(self.model, self.invariant)

    @property
    def only_field(self) -> str | None:
        """The name of the field that the rule is about, if it is about one."""
        names = self.invariant.about(self.model)
        return names.pop() if len(names) == 1 else None

    def message(self, raised: str) -> str:
        """The message to show; ``raised`` is the one that PostgreSQL raised."""
        return str(self.invariant.message or self.invariant.displayed(raised, self.model))


def label_of(model: type[models.Model], invariant: Invariant) -> str:
    """``"shop.Order:discount_within_amount"``."""
    name = invariant.name or f"{type(invariant).__name__} without a name"
    return f"{model._meta.label}:{name}"


def declared() -> Iterator[Declared]:
    """All registered invariants, in the order of their registration."""
    for model, trigger in registered():
        if isinstance(trigger, Invariant):
            yield Declared(model, trigger)


def find(label: str) -> Declared | None:
    """The invariant with this label, if it is registered."""
    return next((item for item in declared() if item.label == label), None)


#: Items of Meta.triggers that are not triggers, as (model, item).
misplaced: list[tuple[type[models.Model], object]] = []


#: Every ``Emit`` in a ``Meta.triggers``, as (model, item).
emits: list[tuple[type[models.Model], Emit]] = []


def register_meta_triggers() -> None:
    """Register everything in ``Meta.triggers``; keep wrong items for the system checks.

    pgtrigger's own loop would abort ``django.setup()`` with an exception.
    """
    for model in apps.get_models():
        for trigger in _sorted_out(model):
            try:
                trigger.register(model)
            except KeyError:
                Invariant.rejected.append((model, trigger))


def _sorted_out(model: type[models.Model]) -> list[Any]:
    """The triggers of ``model``; removes all other items from its Meta."""
    given = getattr(model._meta, "triggers", None) or []
    listed = list(given) if isinstance(given, list | tuple | set) else [given]
    triggers = [item for item in listed if isinstance(item, pgtrigger.Trigger)]
    found = [item for item in listed if isinstance(item, Emit)]
    misplaced.extend((model, i) for i in listed if not isinstance(i, pgtrigger.Trigger | Emit))
    if triggers and not isinstance(given, list | tuple | set):
        misplaced.append((model, given))
    if len(triggers) < len(listed) or listed is not given:
        set_meta_triggers(model, triggers)
    for emit in found:
        emits.append((model, emit))
        emit.register(model)
    return triggers


#: Failed calls of ``register``, as (target, reason); for the system checks.
refused_targets: list[tuple[Any, str]] = []

#: Calls with an ``app_label`` that cannot get the migration, as (target, label).
refused_apps: list[tuple[Any, Any]] = []


def register(model: type[models.Model] | str, *invariants: Invariant, app_label: str = "") -> None:
    """Declare invariants on a model that is not yours, from your app's ``invariants.py``.

    The migration lands in your app; the model's app is unchanged. Automatic many-to-many
    through tables work too: ``bulksafe.register(Article.tags.through, …)``.

    Args:
        model: the model class or its label, ``"auth.User"``.
        *invariants: rules for its rows.
        app_label: the app that gets the migration; by default the one whose module calls.
    """
    module = sys._getframe(1).f_globals.get("__name__", "")
    target = _find(model)
    if isinstance(target, str):
        refused_targets.append((model, target))
        return
    calling = apps.get_containing_app_config(module)
    named = [app for label, app in apps.app_configs.items() if label == app_label]
    app = named[0] if named else calling
    if app_label and (not named or (is_installed_package(named[0]) and app is not calling)):
        refused_apps.append((model, app_label))
        return
    if app is None:
        refused_targets.append((model, f"the calling module {module} is in no installed app"))
        return
    if not invariants:
        refused_targets.append((model, "no invariants were given"))
    given: tuple[Any, ...] = invariants
    for invariant in given:
        if not isinstance(invariant, Invariant):
            refused_targets.append((model, f"{_kind(invariant)} is not an invariant"))
            continue
        own = copy.copy(invariant)
        own.home = app.label
        own.register(target)


def _kind(given: object) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"


def _find(model: type[models.Model] | str) -> type[models.Model] | str:
    """The model class, or the reason why it cannot have triggers."""
    if not apps.models_ready:
        return "the models are not loaded yet; call it in your app's invariants.py"
    found: object = _by_label(model) if isinstance(model, str) else model
    if isinstance(found, str):
        return found
    if not (isinstance(found, type) and issubclass(found, models.Model)):
        return "it is not a model"
    meta = getattr(found, "_meta", None)
    if meta is None or meta.abstract:
        return "an abstract model has no table; put the invariants into its Meta.triggers"
    if meta.swapped:
        return f"it is swapped out for {meta.swapped}; register that one"
    return found


def _by_label(label: str) -> type[models.Model] | str:
    if label.count(".") != 1:
        return "a label has the form “app.Model”"
    try:
        return apps.get_model(label)
    except LookupError as error:
        return str(error).rstrip(".")
