"""Django's own ways to write, each of which knows something that its SQL does not say.

Each function stands around one of Django's methods, as ``bulksafe.patches.writes`` puts it there:
``inner`` is the method, bound. A queryset is one whose ``db`` is the database that is written to.
Models without critical receivers in the transaction go straight through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections, models, router
from django.db.models.constants import OnConflict
from django.db.models.signals import m2m_changed, post_delete, pre_delete

from bulksafe.caching import per_model
from bulksafe.declarations import receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.outbox.events import DELETED, UPDATED
from bulksafe.writer import connecting, telling
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.in_hand import BulkWrite
from bulksafe.writer.performing import perform
from bulksafe.writer.scopes import Deleting, Linking, Saving, Scope
from bulksafe.writer.upserting import Upsert
from bulksafe.writer.vocabulary import vocabulary
from bulksafe.writer.watch import Watch, begun_watch_of, watching

if TYPE_CHECKING:
    from bulksafe.declarations import Receiver

Model = models.Model


def _concrete(model: type[Model]) -> type[Model]:
    found: Any = model._meta.concrete_model
    return found  # type: ignore[no-any-return]


@per_model(receivers.changes)
def is_concerned(model: type[Model]) -> bool:
    """Whether receivers in the transaction are called for what lies in the model's tables."""
    return bool(_concerned(_concrete(model)))


def _watch(model: type[Model], using: str) -> Watch | None:
    """The watch of the database, if there are such receivers."""
    return watching(using) if is_concerned(model) else None


def _concerned(model: type[Model]) -> list[type[Model]]:
    """The models with receivers whose rows lie in the tables of a model, or parts of them."""
    tables = {table._meta.db_table for table in lineage(model)}
    return [
        known
        for known in vocabulary().models
        if any(table._meta.db_table in tables for table in lineage(known))
    ]


def save_base(
    inner: Callable[..., None], instance: Model, *args: Any, using: str | None = None, **named: Any
) -> None:
    """``Model.save()``: Django sends the signals, with its own arguments and the instance."""
    using = using or router.db_for_write(type(instance), instance=instance)
    watch = _watch(type(instance), using)
    if watch is None:
        inner(*args, using=using, **named)
        return
    fields = named.get("update_fields")
    model = _concrete(type(instance))
    with watch.within(
        Saving(
            given_fields=None if fields is None else frozenset(fields),
            model=model,
            instance=instance,
            is_spared=_is_spared(model),
        )
    ):
        inner(*args, using=using, **named)


def save_table(inner: Callable[..., Any], instance: Model, using: str) -> Any:
    """The SQL of a ``save()``, between the signals."""
    watch = begun_watch_of(connections[using])
    scope = watch.scopes[-1] if watch is not None and watch.scopes else None
    if not isinstance(scope, Saving) or scope.instance is not instance:
        return inner()
    with scope.storing():
        return inner()


def _is_spared(model: type[Model]) -> bool:
    """Whether the database need not buffer what Django stores of instances in hand.

    It need not if all receivers are called by Django, or with the objects, and can see nothing
    but these. Inside a receiver it has to: whether anything has changed decides who is called.
    """
    return not telling.depth() and _all_see_instances_only(model)


@per_model(receivers.changes)
def _all_see_instances_only(model: type[Model]) -> bool:
    listed = receivers.of_model(model, receivers.is_inline)
    return len(lineage(model)) == 1 and all(map(_sees_instances_only, listed))


def _sees_instances_only(receiver: Receiver) -> bool:
    if receiver.signal_name in {"pre_delete", "post_delete"}:
        return True
    return (
        receiver.signal is not m2m_changed
        and receiver.when is None
        and not receiver.batch
        and not receiver.extras
    )


def bulk_create(
    inner: Callable[..., Any], queryset: Any, objs: Any, *args: Any, **named: Any
) -> Any:
    """``pre_save`` on the objects, then the INSERT, then ``post_save`` on the same objects."""
    using = str(queryset.db)
    watch = _watch(queryset.model, using)
    if watch is None:
        return inner(objs, *args, **named)
    model = _concrete(queryset.model)
    listed = list(objs)
    if not listed:
        # Nothing to write, but Django checks the other arguments.
        return inner(listed, *args, **named)
    options = {**dict.fromkeys(_OPTIONS), **dict(zip(_OPTIONS, args, strict=False)), **named}
    fields = [_field(model, name) for name in options["update_fields"] or ()]
    unique = [_field(model, name) for name in options["unique_fields"] or ()]
    # Django refuses what does not go together, before any receiver is called.
    queryset._check_bulk_create_options(
        options["ignore_conflicts"], options["update_conflicts"], fields, unique
    )
    if connecting.live(m2m_changed, model):
        return _create_links(watch, model, listed, lambda: inner(listed, *args, **named), options)

    def insert(chunk: Sequence[Model]) -> Any:
        return inner(chunk, *args, **named)

    if options["update_conflicts"]:
        Upsert(watch, model, listed, insert, fields=fields, unique=unique).run()
        return listed
    ignores = bool(options["ignore_conflicts"])
    # Rows that are there already are left out: the database knows which.
    is_spared = not ignores and _is_spared(model)
    BulkWrite(watch, model, listed, None, insert, is_spared=is_spared, ignores=ignores).run()
    return listed


def _field(model: type[Model], name: str) -> Any:
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def _create_links(
    watch: Watch,
    model: type[Model],
    listed: Sequence[Model],
    insert: Callable[[], Any],
    options: dict[str, Any],
) -> Any:
    """Rows of a many-to-many table: which of them there are already, the database says."""
    keys = [instance.pk for instance in listed]

    def insert_again() -> Any:
        for instance, key in zip(listed, keys, strict=True):
            instance.pk = key
        return insert()

    scope = Scope(on_conflict=_on_conflict(model, options))
    created = perform(watch, insert_again, scope, [model])
    for instance in listed:
        row = row_of_instance(instance)
        if row in scope.moved:
            instance.pk = scope.moved[row]
    return created


#: The arguments of ``bulk_create()`` after the objects.
_OPTIONS = ("batch_size", "ignore_conflicts", "update_conflicts", "update_fields", "unique_fields")


def _on_conflict(model: type[Model], options: dict[str, Any]) -> dict[str, Any]:
    """The options as ``QuerySet._insert`` takes them, which have been checked by then."""
    if options.get("ignore_conflicts"):
        return {"on_conflict": OnConflict.IGNORE}
    if not options.get("update_conflicts"):
        return {}
    meta: Any = model._meta
    fields, unique = (options.get(key) or () for key in ("update_fields", "unique_fields"))
    return {
        "on_conflict": OnConflict.UPDATE,
        "update_fields": [meta.get_field(name) for name in fields],
        "unique_fields": [meta.pk if name == "pk" else meta.get_field(name) for name in unique],
    }


def bulk_update(
    inner: Callable[..., int], queryset: Any, objs: Any, fields: Any, *args: Any, **named: Any
) -> int:
    """The same for ``bulk_update()``."""
    using = str(queryset.db)
    watch = _watch(queryset.model, using)
    listed = tuple(objs)
    fields = list(fields)
    if watch is None or not listed or any(instance.pk is None for instance in listed):
        return inner(listed, fields, *args, **named)
    names = _field_names(queryset.model, fields)
    model = _concrete(queryset.model)
    write = BulkWrite(watch, model, listed, names, lambda c: inner(c, fields, *args, **named))
    return sum(count or 0 for count in write.run())


def set_order(
    instance: Model, ordered: type[Model], keys: Iterable[Any], using: str | None
) -> None:
    """``order_with_respect_to``: give the rows of these keys the order of the keys."""
    meta: Any = ordered._meta
    manager: Any = ordered._default_manager
    rows = manager.db_manager(using).filter(
        **meta.order_with_respect_to.get_forward_related_filter(instance)
    )
    listed = [meta.pk.to_python(getattr(key, "pk", key)) for key in keys]
    stored = rows.in_bulk(listed)
    for order, key in enumerate(listed):
        if key in stored:
            stored[key]._order = order
    # In the order of the keys, and each row once.
    rows.bulk_update([stored[key] for key in dict.fromkeys(listed) if key in stored], ["_order"])


def update(inner: Callable[..., int], queryset: Any, **values: Any) -> int:
    """``QuerySet.update()``: rehearsed, where receivers come before it."""
    using = str(queryset.db)
    watch = _watch(queryset.model, using)
    model = _concrete(queryset.model)
    if watch is None:
        return inner(**values)
    if watch.scopes and watch.scopes[-1].covers(model, "UPDATE"):
        # Part of a bulk_update().
        return inner(**values)
    watch.expect(queryset)
    scope = Scope(
        given_fields=_field_names(queryset.model, values),
        child=model if model._meta.parents else None,
    )
    count: int = perform(
        watch,
        lambda: inner(**values),
        scope,
        _concerned(model),
        model=model,
        returning=(model, UPDATED),
    )
    return count


def delete(inner: Callable[[], Any], collector: Any) -> Any:
    """``delete()``: Django has the instances and sends the signals."""
    affected = {
        *collector.data,
        *(queryset.model for queryset in collector.fast_deletes),
        *(field.model for field, _ in collector.field_updates),
    }
    watches = [watch for model in affected if (watch := _watch(model, collector.using))]
    if not watches:
        return inner()
    watch = watches[0]
    scope = Deleting(
        given_origin=collector.origin,
        models=frozenset(_concrete(model) for model in collector.data),
        root=_root(collector),
    )
    if len(collector.fast_deletes) == 1 and not collector.data and not collector.field_updates:
        # One statement, and no instances.
        watch.expect(collector.fast_deletes[0])
        model = _concrete(collector.fast_deletes[0].model)
        return perform(watch, inner, scope, returning=(model, DELETED))
    for instances in collector.data.values():
        scope.take(instances)
    with watch.within(scope):
        return inner()


def can_delete_without_instances(collector: Any, objs: Any) -> bool:
    """Whether receivers allow rows to be deleted without being fetched, where Django refuses it.

    To Django, receivers stand against it. Those that come after the deletion get what the database
    has captured.
    """
    is_queryset = hasattr(objs, "_raw_delete") and hasattr(collector.origin, "_raw_delete")
    if not is_queryset or _watch(objs.model, collector.using) is None:
        return False
    return not (
        connecting.has_others(post_delete, objs.model) or pre_delete.has_listeners(objs.model)
    )


def _root(collector: Any) -> type[Model] | None:
    """The model whose rows ``delete()`` was called for."""
    origin = collector.origin
    model: Any = getattr(origin, "model", None) or type(origin)
    return _concrete(model) if hasattr(model, "_meta") else None


def link(inner: Callable[..., Any], manager: Any, *args: Any, **named: Any) -> Any:
    """A many-to-many manager: Django sends ``m2m_changed``, where it does."""
    # Since Django 6.1 the database is an argument.
    using = named.get("using") or router.db_for_write(manager.through, instance=manager.instance)
    watch = _watch(manager.through, using)
    if watch is None:
        return inner(*args, **named)
    with watch.within(Linking(through=_concrete(manager.through))):
        return inner(*args, **named)


def _field_names(model: type[Model], fields: Any) -> frozenset[str]:
    """The names of fields that are given as names or as fields; unknown ones as they are."""
    known = {name: one.name for one in model._meta.fields for name in (one.name, one.attname)}
    known["pk"] = model._meta.pk.name
    names = [field if isinstance(field, str) else field.name for field in fields]
    return frozenset(known.get(name, name) for name in names)
