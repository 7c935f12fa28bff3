"""Cache of values per model class, freed together with the class."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

from django.apps import apps

from bulksafe.object_state import attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.apps.registry import Apps
    from django.db.models import Model

_Result = TypeVar("_Result")


def per_model(
    version: Callable[[], object],
) -> Callable[[Callable[[type[Model]], _Result]], Callable[[type[Model]], _Result]]:
    """Cache a function of a model class in the class itself.

    ``functools.cache`` would keep every historical model of a data migration, and a
    ``WeakKeyDictionary`` would too: the results refer to the model.

    Args:
        version: results are computed again when this returns something else.
    """

    def decorate(function: Callable[[type[Model]], _Result]) -> Callable[[type[Model]], _Result]:
        key = f"_bulksafe {function.__module__}.{function.__qualname__}"

        @functools.wraps(function)
        def cached(model: type[Model]) -> _Result:
            # The class's own dict: a child inherits attributes of a class, but has its own _meta.
            now = version()
            found = model._meta.__dict__.get(key)
            if found is None or found[0] != now:
                found = attributes(model._meta)[key] = now, function(model)
            result: _Result = found[1]
            return result

        return cached

    return decorate


def models_of(registry: Apps, *, include_auto_created: bool = False) -> list[type[Model]]:
    """``registry.get_models()``, which caches its result for good, and the registry with it.

    That would keep the historical models of a migration.
    """
    if registry is apps:
        return registry.get_models(include_auto_created=include_auto_created)
    return [
        model
        for models in registry.all_models.values()
        for model in models.values()
        if not model._meta.swapped and (include_auto_created or not model._meta.auto_created)
    ]


def forever() -> object:
    """The version of what never changes."""
    return None
