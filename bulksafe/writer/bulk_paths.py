"""``bulk_create()``, ``bulk_update()`` and ``set_…_order()``: writes of objects in hand.

As in ``paths``, each function wraps one of Django's methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections, router
from django.db.models.constants import OnConflict
from django.db.models.signals import m2m_changed

from bulksafe.hidden import hidden
from bulksafe.writer import connecting
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.in_hand import BulkWrite
from bulksafe.writer.paths import concrete, field_names, is_spared, session_for
from bulksafe.writer.performing import perform
from bulksafe.writer.scopes import Scope
from bulksafe.writer.upserting import Upsert

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

    from bulksafe.writer.session import Session


def bulk_create(
    inner: Callable[..., Any],
    queryset: Any,
    objs: Iterable[Model],
    *args: Any,
    **named: Any,
) -> Any:
    """``pre_save`` on the objects, then the INSERT, then ``post_save`` on the same objects."""
    using = str(queryset.db)
    session = session_for(queryset.model, using)
    if session is None:
        return inner(objs, *args, **named)
    model = concrete(queryset.model)
    listed = list(objs)
    if not listed:
        # Nothing to write, but Django still checks the other arguments.
        return inner(listed, *args, **named)
    options = {**dict.fromkeys(_OPTIONS), **dict(zip(_OPTIONS, args, strict=False)), **named}
    fields = [_field(model, name) for name in options["update_fields"] or ()]
    unique = [_field(model, name) for name in options["unique_fields"] or ()]
    # Django refuses conflicting options, before any receiver is called.
    queryset._check_bulk_create_options(
        options["ignore_conflicts"], options["update_conflicts"], fields, unique
    )
    if connecting.live(m2m_changed, model):
        return _create_links(session, model, listed, lambda: inner(listed, *args, **named), options)

    def insert(chunk: Sequence[Model]) -> Any:
        return inner(chunk, *args, **named)

    if options["update_conflicts"]:
        Upsert(session, model, listed, insert, fields=fields, unique=unique).run()
        return listed
    ignores = bool(options["ignore_conflicts"])
    # Existing rows are left out: only the database can determine them.
    spares_buffer = not ignores and is_spared(model)
    BulkWrite(session, model, listed, None, insert, is_spared=spares_buffer, ignores=ignores).run()
    return listed


def _field(model: type[Model], name: str) -> Any:
    return model._meta.pk if name == "pk" else model._meta.get_field(name)


def _create_links(
    session: Session,
    model: type[Model],
    listed: Sequence[Model],
    insert: Callable[[], Any],
    options: dict[str, Any],
) -> Any:
    """Rows of a many-to-many table: the database determines which exist already."""
    keys = [instance.pk for instance in listed]

    def insert_again() -> Any:
        for instance, key in zip(listed, keys, strict=True):
            instance.pk = key
        return insert()

    scope = Scope(on_conflict=_on_conflict(model, options))
    created = perform(session, insert_again, scope, [model])
    for instance in listed:
        row = row_of_instance(instance)
        if row in scope.moved:
            instance.pk = scope.moved[row]
    return created


#: The arguments of ``bulk_create()`` after the objects.
_OPTIONS = ("batch_size", "ignore_conflicts", "update_conflicts", "update_fields", "unique_fields")


def _on_conflict(model: type[Model], options: dict[str, Any]) -> dict[str, Any]:
    """The options in the form of ``QuerySet._insert``, already checked."""
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
    inner: Callable[..., int],
    queryset: QuerySet[Model],
    objs: Iterable[Model],
    fields: Any,
    *args: Any,
    **named: Any,
) -> int:
    """The same for ``bulk_update()``."""
    using = str(queryset.db)
    session = session_for(queryset.model, using)
    listed = tuple(objs)
    fields = list(fields)
    if session is None or not listed or any(instance.pk is None for instance in listed):
        return inner(listed, fields, *args, **named)
    names = field_names(queryset.model, fields)
    model = concrete(queryset.model)
    write = BulkWrite(session, model, listed, names, lambda c: inner(c, fields, *args, **named))
    return sum(count or 0 for count in write.run())


def set_order(
    instance: Model, ordered: type[Model], keys: Iterable[Any], using: str | None
) -> None:
    """``order_with_respect_to``: give the rows of these keys the order of the keys."""
    meta: Any = ordered._meta
    manager: Any = ordered._default_manager
    # Read where the rows will be written.
    using = using or router.db_for_write(ordered, instance=instance)
    rows = manager.db_manager(using).filter(
        **meta.order_with_respect_to.get_forward_related_filter(instance)
    )
    listed = [meta.pk.to_python(getattr(key, "pk", key)) for key in keys]
    with hidden(connections[using]):
        stored = rows.in_bulk(listed)
    for order, key in enumerate(listed):
        if key in stored:
            stored[key]._order = order
    # In key order, each row once.
    rows.bulk_update([stored[key] for key in dict.fromkeys(listed) if key in stored], ["_order"])
