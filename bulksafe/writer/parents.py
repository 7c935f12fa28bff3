"""Drops related objects that receivers fetched before a write, which may be stale after it.

Row by row, a receiver that increments ``instance.customer.orders`` fetches the customer after the
previous row is written. In bulk, the ``pre_*`` receivers of all rows have already fetched theirs:
each would increment the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from django.db.models import Model

#: Cached related objects by the name of the relation, by the ``id()`` of the instance.
Cached: TypeAlias = "Mapping[int, Mapping[str, object]]"


def cached(instances: Iterable[Model]) -> Cached:
    """The related objects that instances have before the first receiver runs."""
    caches = ((id(one), one._state.fields_cache) for one in instances)
    return {key: dict(cache) for key, cache in caches if cache}


def forget(
    instances: Iterable[Model], before: Cached, gone: Collection[type[Model] | None] = ()
) -> None:
    """Drop the related objects that receivers fetched.

    Args:
        before: the caller's related objects, which are kept.
        gone: concrete models whose rows the write deletes: they could not be fetched again.
    """
    for instance in instances:
        cache = instance._state.fields_cache
        if cache:
            given = before.get(id(instance), {})
            for name, value in list(cache.items()):
                if not _is_kept(name, value, given, gone):
                    del cache[name]


def _is_kept(
    name: str, value: object, given: Mapping[str, object], gone: Collection[type[Model] | None]
) -> bool:
    if name in given and given[name] is value:
        return True
    meta = getattr(value, "_meta", None)
    return meta is None or meta.concrete_model in gone
