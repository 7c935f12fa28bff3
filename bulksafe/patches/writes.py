"""Patches of Django's write methods: each runs in-transaction receivers.

The logic is in ``paths`` and ``bulk_paths`` of ``bulksafe.writer``. Models without such receivers
bypass it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import Model, QuerySet, base
from django.db.models.deletion import Collector
from django.db.models.fields import related_descriptors

from bulksafe import compat
from bulksafe.object_state import attributes
from bulksafe.patches.computed import read_back
from bulksafe.patches.patching import Patch, wrap
from bulksafe.writer import bulk_paths, paths, switched, uncaptured

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django.db.models import Manager, ManyToManyRel

    from bulksafe.patches.patching import Original

    #: The number of deleted rows, in total and by model label.
    Deleted: TypeAlias = tuple[int, dict[str, int]]

# Instances.

#: The arguments of ``Model.save_base`` and ``Model._save_table``, which may be given by position.
_SAVE_BASE = ("raw", "force_insert", "force_update", "using", "update_fields")
_SAVE_TABLE = ("raw", "cls", "force_insert", "force_update", "using", "update_fields")


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=False))


def _save_base(original: Original[None], self: Model, *args: Any, **kwargs: Any) -> None:
    # Most models have none: theirs is the shortest way.
    if not paths.has_receivers(type(self)):
        original(self, *args, **kwargs)
    elif switched.is_listed(type(self)):
        _save_listed(original, self, **_named(_SAVE_BASE, args), **kwargs)
    elif paths.is_concerned(type(self)):
        inner = functools.partial(original, self)
        paths.save_base(inner, self, **_named(_SAVE_BASE, args), **kwargs)
    else:
        original(self, *args, **kwargs)


def _save_listed(
    original: Original[None], self: Model, using: str | None = None, **named: Any
) -> None:
    """The same for a model in rollout."""
    using = using or router.db_for_write(type(self), instance=self)
    inner = functools.partial(original, self)
    with switched.decided([type(self)], using), uncaptured.saving(self, using):
        if paths.is_concerned(type(self)) and not switched.is_off(connections[using], type(self)):
            paths.save_base(inner, self, using=using, **named)
        else:
            inner(using=using, **named)


def _save_table(original: Original[bool], self: Model, *args: Any, **kwargs: Any) -> bool:
    if not paths.has_receivers(type(self)):
        return original(self, *args, **kwargs)
    named = {**_named(_SAVE_TABLE, args), **kwargs}
    if switched.is_listed(type(self)):
        uncaptured.note_before_save(self, named.get("using") or DEFAULT_DB_ALIAS)
    if not paths.is_concerned(type(self)):
        return original(self, *args, **kwargs)
    inner = functools.partial(original, self, **named)
    is_updated: bool = paths.save_table(inner, self, named.get("using") or DEFAULT_DB_ALIAS)
    return is_updated


def _set_order(
    original: Original[None],
    self: Model,
    ordered: type[Model],
    keys: Iterable[Any],
    using: str | None = None,
) -> None:
    alias = using or router.db_for_write(ordered, instance=self)
    with switched.deciding(ordered, alias) as is_off:
        if paths.is_concerned(ordered) and not is_off:
            bulk_paths.set_order(self, ordered, keys, using)
        else:
            original(self, ordered, keys, using)


# Querysets.


def _bulk_create(
    original: Original[list[Model]],
    self: QuerySet[Any],
    objs: Iterable[Model],
    *args: Any,
    **kwargs: Any,
) -> list[Model]:
    def create(objs: Iterable[Model], *args: Any, **kwargs: Any) -> list[Model]:
        created = original(self, objs, *args, **kwargs)
        if kwargs.get("ignore_conflicts") or (len(args) > 1 and args[1]):
            read_back(self, created)
        return created

    _route_for_write(self)
    with switched.deciding(self.model, str(self.db)) as is_off:
        if is_off:
            return create(objs, *args, **kwargs)
        created: list[Model] = bulk_paths.bulk_create(create, self, objs, *args, **kwargs)
        return created


def _bulk_update(
    original: Original[int],
    self: QuerySet[Any],
    objs: Iterable[Model],
    fields: Iterable[str],
    *args: Any,
    **kwargs: Any,
) -> int:
    def write(objs: Iterable[Model], fields: Iterable[str], *args: Any, **kwargs: Any) -> int:
        instances = tuple(objs)
        count = original(self, instances, fields, *args, **kwargs)
        read_back(self, instances)
        return count

    _route_for_write(self)
    with switched.deciding(self.model, str(self.db)) as is_off:
        if is_off:
            return write(objs, fields, *args, **kwargs)
        return bulk_paths.bulk_update(write, self, objs, fields, *args, **kwargs)


def _update(original: Original[int], self: QuerySet[Any], **kwargs: Any) -> int:
    if not paths.is_concerned(self.model):
        return original(self, **kwargs)
    _route_for_write(self)
    with switched.deciding(self.model, str(self.db)) as is_off:
        if is_off:
            return original(self, **kwargs)
        return paths.update(functools.partial(original, self), self, **kwargs)


def _route_for_write(queryset: QuerySet[Any]) -> None:
    """Set ``queryset.db`` to the database for writes, as Django's own methods do."""
    attributes(queryset)["_for_write"] = True


# Deletions.


def _collector_delete(original: Original[Deleted], self: Collector) -> Deleted:
    inner = functools.partial(original, self)
    listed = [model for model in paths.affected(self) if switched.is_listed(model)]
    with switched.decided(listed, self.using):
        for instances in self.data.values() if listed else ():
            uncaptured.note_before_delete(instances, self.using)
        deleted: Deleted = paths.delete(inner, self)
        return deleted


def _can_fast_delete(
    original: Original[bool],
    self: Collector,
    objs: Model | Iterable[Model],
    *args: Any,
    **kwargs: Any,
) -> bool:
    """Django refuses it if there are receivers; those fed by the database allow it."""
    inner = functools.partial(original, self, objs, *args, **kwargs)
    if inner():
        return True
    if _is_listed(objs):
        # Without instances, Django sends no signal if the capture is switched off meanwhile.
        return False
    if not paths.can_delete_without_instances(self, objs):
        return False
    attributes(self)["_has_signal_listeners"] = _has_none
    try:
        return inner()
    finally:
        del attributes(self)["_has_signal_listeners"]


def _is_listed(objs: Any) -> bool:
    model = getattr(objs, "model", None) or type(objs)
    return hasattr(model, "_meta") and switched.is_listed(model)


def _has_none(model: type[Model]) -> bool:
    return False


# Links.


def _create_manager(
    original: Original[type[Manager[Any]]],
    superclass: type[Manager[Any]],
    rel: ManyToManyRel,
    reverse: bool,
) -> type[Manager[Any]]:
    manager = original(superclass, rel, reverse)
    for name in compat.M2M_CHANGED_SENDERS:
        wrap(manager, name, _link)
    return manager


def _link(original: Original[None], self: Manager[Any], *args: Any, **kwargs: Any) -> None:
    manager: Any = self
    inner = functools.partial(original, self)
    if not switched.is_listed(manager.through):
        paths.link(inner, self, *args, **kwargs)
        return
    using = kwargs.get("using") or router.db_for_write(manager.through, instance=manager.instance)
    with switched.deciding(manager.through, using) as is_off:
        if is_off:
            inner(*args, **kwargs)
        else:
            paths.link(inner, self, *args, **kwargs)


EARLY = (
    Patch(
        Model,
        "save_base",
        _save_base,
        "The signals of a save() and the change that the database captured are one call.",
    ),
    Patch(
        Model,
        "_save_table",
        _save_table,
        "Separates the SQL of a save() from what receivers write before and after it.",
    ),
    Patch(
        base,
        "method_set_order",
        _set_order,
        "set_…_order() updates instances that have nothing but a key; receivers need the rows.",
    ),
    Patch(
        QuerySet,
        "bulk_create",
        _bulk_create,
        "Receivers run before and after it; with ignore_conflicts, instances get the computed "
        "values of the stored row.",
    ),
    Patch(
        QuerySet,
        "bulk_update",
        _bulk_update,
        "Receivers run before and after it; instances get the computed values.",
    ),
    Patch(QuerySet, "update", _update, "Receivers run before and after it."),
    Patch(
        Collector,
        "delete",
        _collector_delete,
        "Receivers run for the rows that Django deletes without fetching them.",
    ),
    Patch(
        Collector,
        "can_fast_delete",
        _can_fast_delete,
        "post_delete receivers that get the rows from the database need no fetched instances.",
    ),
    Patch(
        related_descriptors,
        "create_forward_many_to_many_manager",
        _create_manager,
        "Creates the classes of many-to-many managers, whose methods send m2m_changed: the links "
        "that they write are not dispatched twice.",
    ),
)
