"""Django's write methods, each with information that its SQL lacks.

Each function wraps one of Django's methods; ``bulksafe.patches.writes`` installs it:
``inner`` is the method, bound. A queryset's ``db`` is the database for writes. Models without
in-transaction receivers bypass these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections, models, router
from django.db.models.signals import m2m_changed, post_delete, pre_delete

from bulksafe import call_stack
from bulksafe.caching import per_model
from bulksafe.declarations import receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.outbox.events import DELETED, UPDATED
from bulksafe.writer import connecting, switched
from bulksafe.writer.attaching import begun_session_of, not_postgresql, session_on
from bulksafe.writer.instance_scopes import Deleting, Saving
from bulksafe.writer.performing import perform
from bulksafe.writer.scopes import Linking, Scope
from bulksafe.writer.vocabulary import vocabulary

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.db.models.deletion import Collector

    from bulksafe.declarations import Receiver
    from bulksafe.writer.connection_session import ConnectionSession

Model = models.Model


def concrete(model: type[Model]) -> type[Model]:
    found: Any = model._meta.concrete_model
    return found  # type: ignore[no-any-return]


@per_model(receivers.changes)
def is_concerned(model: type[Model]) -> bool:
    """Whether the model's tables have in-transaction receivers."""
    return bool(_concerned(concrete(model)))


@per_model(receivers.changes)
def has_receivers(model: type[Model]) -> bool:
    """Whether the model's tables have in-transaction receivers, or it has others."""
    return is_concerned(model) or bool(receivers.of_model(concrete(model)))


def session_for(model: type[Model], using: str) -> ConnectionSession | None:
    """The session of the database, if there are such receivers.

    Raises:
        NotSupportedError: there are, and it is not PostgreSQL.
    """
    if not is_concerned(model):
        return None
    session = session_on(using)
    if session is None:
        for one in _concerned(concrete(model)):
            for receiver in receivers.of_model(one, receivers.is_inline):
                if receiver in connecting.live(receiver.signal, one):
                    raise not_postgresql(one, receiver, using)
    return session


@per_model(receivers.changes)
def _concerned(model: type[Model]) -> Sequence[type[Model]]:
    """The models with receivers whose rows are stored, at least partly, in a model's tables."""
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
    session = session_for(type(instance), using)
    if session is None:
        inner(*args, using=using, **named)
        return
    fields = named.get("update_fields")
    model = concrete(type(instance))
    with session.within(
        Saving(
            given_fields=None if fields is None else frozenset(fields),
            model=model,
            instance=instance,
            is_spared=is_spared(model),
            is_logged=bool(model._meta.parents),
        )
    ):
        inner(*args, using=using, **named)


def save_table(inner: Callable[..., Any], instance: Model, using: str) -> Any:
    """The SQL of a ``save()``, between the signals."""
    session = begun_session_of(connections[using])
    scope = session.scopes[-1] if session is not None and session.scopes else None
    if not isinstance(scope, Saving) or scope.instance is not instance:
        return inner()
    with scope.storing():
        return inner()


def is_spared(model: type[Model]) -> bool:
    """Whether the database need not buffer the rows that Django stores for instances in hand.

    It need not if all receivers are called by Django or with the objects, and use only these.
    Inside a receiver it must: receivers are called only if a value has changed.
    """
    return not call_stack.depth() and _all_see_instances_only(model)


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


def update(inner: Callable[..., int], queryset: QuerySet[Model], **values: Any) -> int:
    """``QuerySet.update()``, on the path that its receivers need."""
    using = str(queryset.db)
    session = session_for(queryset.model, using)
    model = concrete(queryset.model)
    if session is None:
        return inner(**values)
    if session.scopes and session.scopes[-1].covers(model, "UPDATE"):
        # Part of a bulk_update().
        return inner(**values)
    session.expect(queryset)
    scope = Scope(
        given_fields=field_names(queryset.model, values),
        child=model if model._meta.parents else None,
    )
    count: int = perform(
        session,
        lambda: inner(**values),
        scope,
        _concerned(model),
        model=model,
        returning=(model, UPDATED),
    )
    return count


def delete(inner: Callable[[], Any], collector: Collector) -> Any:
    """``delete()``: Django has the instances and sends the signals."""
    watches = [
        session
        for model in affected(collector)
        if not switched.is_off(connections[collector.using], model)
        and (session := session_for(model, collector.using))
    ]
    if not watches:
        return inner()
    session = watches[0]
    scope = Deleting(
        given_origin=collector.origin,
        models=frozenset(concrete(model) for model in collector.data),
        root=_root(collector),
        is_logged=not _is_one_statement(collector),
    )
    if len(collector.fast_deletes) == 1 and not collector.data and not collector.field_updates:
        # One statement, and no instances.
        session.expect(collector.fast_deletes[0])
        model = concrete(collector.fast_deletes[0].model)
        return perform(session, inner, scope, returning=(model, DELETED))
    for instances in collector.data.values():
        scope.take(instances)
    with session.within(scope):
        return inner()


def affected(collector: Collector) -> set[type[Model]]:
    """The models whose rows ``delete()`` deletes or updates."""
    return {
        *collector.data,
        *(queryset.model for queryset in collector.fast_deletes),
        *(field.model for field, _ in collector.field_updates),
    }


def _is_one_statement(collector: Collector) -> bool:
    """Whether Django deletes a single object, without a transaction."""
    instances = [one for listed in collector.data.values() for one in listed]
    return len(instances) == 1 and bool(collector.can_fast_delete(instances[0]))


def can_delete_without_instances(collector: Collector, objs: Any) -> bool:
    """Whether receivers allow deletion without fetching rows, although Django refuses it.

    Django refuses it if there are receivers. But receivers after the deletion get the captured
    rows.
    """
    is_queryset = hasattr(objs, "_raw_delete") and hasattr(collector.origin, "_raw_delete")
    if not is_queryset or session_for(objs.model, collector.using) is None:
        return False
    return not (
        connecting.has_others(post_delete, objs.model) or pre_delete.has_listeners(objs.model)
    )


def _root(collector: Collector) -> type[Model] | None:
    """The model whose rows ``delete()`` was called for."""
    origin = collector.origin
    model: Any = getattr(origin, "model", None) or type(origin)
    return concrete(model) if hasattr(model, "_meta") else None


def link(inner: Callable[..., Any], manager: Any, *args: Any, **named: Any) -> Any:
    """A write by a many-to-many manager, for which Django sends ``m2m_changed`` itself."""
    # Since Django 6.1 the database is an argument.
    using = named.get("using") or router.db_for_write(manager.through, instance=manager.instance)
    session = session_for(manager.through, using)
    if session is None:
        return inner(*args, **named)
    with session.within(Linking(through=concrete(manager.through), is_logged=True)):
        return inner(*args, **named)


def field_names(model: type[Model], fields: Any) -> frozenset[str]:
    """The names of fields that are given as names or as fields; unknown ones as they are."""
    known = {name: one.name for one in model._meta.fields for name in (one.name, one.attname)}
    known["pk"] = model._meta.pk.name
    names = [field if isinstance(field, str) else field.name for field in fields]
    return frozenset(known.get(name, name) for name in names)
