"""Every place where Django or pgtrigger is changed: what, and why.

Those of migrations are in ``migrating``. tests/integration/test_patches.py fails where a new
release of either moves what is patched.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pgtrigger.apps
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql import operations
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper
from django.db.migrations.migration import Migration
from django.db.models import Model, QuerySet, base
from django.db.models.deletion import Collector
from django.db.models.fields import related_descriptors
from django.db.models.options import Options
from django.db.models.signals import ModelSignal
from django.utils.functional import cached_property
from pgtrigger import features

from bulksafe import compat, contexts, validation, violations
from bulksafe.declarations import declared
from bulksafe.declarations.compute import computed_fields
from bulksafe.declarations.registry import register_meta_triggers
from bulksafe.outbox import schema
from bulksafe.patches import migrating
from bulksafe.patches.patching import APPLIED, patch
from bulksafe.statements import text_of
from bulksafe.writer import connecting, paths, watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def apply() -> None:
    """Apply all patches; a second call changes nothing."""
    for receiver in (violations.raise_violations, contexts.carry, watch.attach):
        connection_created.connect(receiver, dispatch_uid=f"bulksafe.{receiver.__name__}")
        for connection in connections.all(initialized_only=True):
            receiver(sender=type(connection), connection=connection)
    patch(DatabaseWrapper, "_commit", _commit)
    patch(DatabaseWrapper, "_rollback", _rollback)
    patch(CursorWrapper, "callproc", _callproc)
    _extend_cursors()
    patch(Migration, "apply", _migrate)
    patch(Migration, "unapply", _migrate)
    patch(operations.DatabaseOperations, "execute_sql_flush", _execute_sql_flush)
    migrating.apply()
    _extend_returning()


def apply_early() -> None:
    """Apply what must be in place before models are loaded, and before pgtrigger's ``ready()``.

    Some packages wrap methods of a model as soon as it is prepared: they have to find these.
    """
    pgtrigger.apps.register_triggers_from_meta = _register_triggers_from_meta
    patch(Model, "get_constraints", _get_constraints)
    patch(Model, "_do_update", _do_update)
    patch(QuerySet, "bulk_create", _bulk_create)
    patch(QuerySet, "bulk_update", _bulk_update)
    patch(Model, "save_base", _save_base)
    patch(Model, "_save_table", _save_table)
    patch(QuerySet, "update", _update)
    patch(Collector, "delete", _collector_delete)
    patch(Collector, "can_fast_delete", _can_fast_delete)
    patch(base, "method_set_order", _set_order)
    patch(ModelSignal, "connect", _connect)
    patch(ModelSignal, "disconnect", _disconnect)
    _extend_related_managers()


# full_clean() knows the invariants.


def _get_constraints(original: Any, self: Model) -> Any:
    """``Model.validate_constraints`` asks for the constraints of a model and of its parents."""
    return [*original(self), *validation.constraints_of(type(self))]


# Instances carry no stale computed values.


def _extend_returning() -> None:
    """An INSERT returns what the database computed, as it does for database defaults.

    ``Options.db_returning_fields`` is a cached property that no public API can add to.
    """
    cached = Options.__dict__["db_returning_fields"]
    if getattr(cached.func, APPLIED, False):
        return

    def db_returning_fields(meta: Options[Any]) -> list[Any]:
        returning = cached.func(meta)
        return [*returning, *(f for f in computed_fields(meta.model) if f not in returning)]

    setattr(db_returning_fields, APPLIED, True)
    replacement = cached_property(db_returning_fields)
    replacement.__set_name__(Options, "db_returning_fields")
    Options.db_returning_fields = replacement  # type: ignore[method-assign, assignment]
    for item in declared():
        item.model._meta.__dict__.pop("db_returning_fields", None)


def _do_update(  # noqa: PLR0917  (Django's own signature)
    original: Any, self: Model, base_qs: Any, using: str, pk_val: Any, values: Any, *rest: Any
) -> Any:
    """The UPDATE of a ``save()`` returns the computed columns."""
    computed = computed_fields(base_qs.model)
    if not computed or not values:
        return original(self, base_qs, using, pk_val, values, *rest)
    if compat.UPDATE_RETURNS_FIELDS:
        returning = rest[-1]
        returning += [field for field in computed if field not in returning]
        return original(self, base_qs, using, pk_val, values, *rest)
    filtered = base_qs.filter(pk=pk_val)
    rows = compat.update_returning(filtered, values, computed)
    for field, value in zip(computed, rows[0] if rows else (), strict=False):
        setattr(self, field.attname, value)
    # With select_on_save, a row that a BEFORE trigger kept from the UPDATE is not a missing one.
    is_forced = bool(rest[-1])
    return bool(rows) or (self._meta.select_on_save and not is_forced and filtered.exists())


def _bulk_create(original: Any, self: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
    """``ignore_conflicts`` returns no columns, and leaves it open which row is stored."""

    def create(objs: Any, *args: Any, **kwargs: Any) -> Any:
        created = original(self, objs, *args, **kwargs)
        if kwargs.get("ignore_conflicts") or (len(args) > 1 and args[1]):
            _read_back(self, created)
        return created

    return paths.bulk_create(create, self, objs, *args, **kwargs)


def _bulk_update(
    original: Any, self: Any, objs: Any, fields: Any, *args: Any, **kwargs: Any
) -> Any:
    def write(objs: Any, fields: Any, *args: Any, **kwargs: Any) -> Any:
        instances = tuple(objs)
        count = original(self, instances, fields, *args, **kwargs)
        _read_back(self, instances)
        return count

    return paths.bulk_update(write, self, objs, fields, *args, **kwargs)


_READ_BACK_BATCH = 5000


def _read_back(queryset: Any, instances: Sequence[Model]) -> None:
    """Give ``instances`` the computed values that are stored, with one query for a batch."""
    tables = (queryset.model, *queryset.model._meta.get_parent_list())
    names = [field.attname for table in tables for field in computed_fields(table)]
    if not names:
        return
    pk_names = [field.attname for field in queryset.model._meta.pk_fields]
    for start in range(0, len(instances), _READ_BACK_BATCH):
        batch = [(_key(instance), instance) for instance in instances[start:][:_READ_BACK_BATCH]]
        keys = [instance.pk for key, instance in batch if None not in key]
        rows = queryset.model._base_manager.using(queryset.db).filter(pk__in=keys)
        listed = rows.values_list(*pk_names, *names) if keys else ()
        stored = {row[: len(pk_names)]: row[len(pk_names) :] for row in listed}
        for key, instance in batch:
            values = stored.get(key, (None,) * len(names))
            for name, value in zip(names, values, strict=True):
                # Not into __dict__: a foreign key forgets the object that it had before.
                setattr(instance, name, value)


def _key(instance: Model) -> tuple[Any, ...]:
    """The primary key as a query returns it: it may have been set as text."""
    return tuple(
        field.to_python(getattr(instance, field.attname)) for field in instance._meta.pk_fields
    )


# Receivers in the writer's transaction.


def _save_base(original: Any, self: Model, *args: Any, **kwargs: Any) -> Any:
    if not paths.is_concerned(type(self)):
        return original(self, *args, **kwargs)
    inner = functools.partial(original, self)
    return paths.save_base(inner, self, **_named(_SAVE_BASE, args), **kwargs)


def _save_table(original: Any, self: Model, *args: Any, **kwargs: Any) -> Any:
    if not paths.is_concerned(type(self)):
        return original(self, *args, **kwargs)
    named = {**_named(_SAVE_TABLE, args), **kwargs}
    inner = functools.partial(original, self, **named)
    return paths.save_table(inner, self, named.get("using") or DEFAULT_DB_ALIAS)


_SAVE_TABLE = ("raw", "cls", "force_insert", "force_update", "using", "update_fields")


#: The arguments of ``Model.save_base``, which may be given by position.
_SAVE_BASE = ("raw", "force_insert", "force_update", "using", "update_fields")


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=False))


def _update(original: Any, self: Any, **kwargs: Any) -> Any:
    if not paths.is_concerned(self.model):
        return original(self, **kwargs)
    return paths.update(functools.partial(original, self), self, **kwargs)


def _set_order(original: Any, self: Model, ordered: Any, keys: Any, using: Any = None) -> None:
    """``set_…_order()`` updates instances that have nothing but a key: receivers get the rows."""
    if paths.is_concerned(ordered):
        paths.set_order(self, ordered, keys, using)
    else:
        original(self, ordered, keys, using)


def _collector_delete(original: Any, self: Any) -> Any:
    return paths.delete(functools.partial(original, self), self)


def _can_fast_delete(original: Any, self: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
    return paths.can_fast_delete(
        functools.partial(original, self, objs, *args, **kwargs), self, objs
    )


def _commit(original: Any, self: Any) -> Any:
    """What was written past Django's cursors is told before the commit, not refused at it.

    Deferred triggers write on behalf of nobody who was called before.
    """
    watch.before_commit(self)
    carrier = contexts.carrier_of(self)
    if carrier is None:
        return original(self)
    carrier.correct()
    try:
        return original(self)
    finally:
        carrier.end()


def _rollback(original: Any, self: Any) -> Any:
    """The next transaction begins without an identity."""
    carrier = contexts.carrier_of(self)
    if carrier is not None:
        carrier.end()
    return original(self)


def _connect(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """``disconnect()`` and ``connect()`` again is how receivers are muted."""
    result = original(self, *args, **kwargs)
    connecting.restore(self)
    connecting.note_change()
    return result


def _disconnect(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """A receiver may disconnect another one, or itself, in the middle of a bulk write."""
    result = original(self, *args, **kwargs)
    connecting.note_change()
    return result


def _callproc(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Execute wrappers hear nothing of it."""
    run = functools.partial(original, self, *args, **kwargs)
    if self.db.vendor != "postgresql":
        return run()

    def carried() -> Any:
        with _carrying(self.db, "CALL"):
            return run()

    return watch.watch_of(self.db).run(carried)


def _extend_cursors() -> None:
    """Execute wrappers see nothing of psycopg's ``copy()`` and ``stream()`` either.

    Django has no methods of these names: it passes the driver's on.
    """
    for name, extended in (("copy", _copy), ("stream", _stream)):
        if name not in CursorWrapper.__dict__:
            setattr(CursorWrapper, name, property(extended))


def _copy(self: Any) -> Any:
    original = self.cursor.copy
    if self.db.vendor != "postgresql":
        return original

    @functools.wraps(original)
    @contextmanager
    def copy(statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with _carrying(self.db, "COPY"), original(statement, *args, **kwargs) as rows:
            yield rows

    return copy


def _stream(self: Any) -> Any:
    """In autocommit the statement goes without an identity.

    A transaction around it would stay open as long as the rows are not read to the end.
    """
    original = self.cursor.stream
    if self.db.vendor != "postgresql":
        return original

    @functools.wraps(original)
    def stream(query: Any, *args: Any, **kwargs: Any) -> Any:
        carrier = contexts.carrier_of(self.db)
        if carrier is not None:
            carrier.prepare(text_of(query, self.db))
        return original(query, *args, **kwargs)

    return stream


def _carrying(connection: Any, text: str) -> AbstractContextManager[None]:
    carrier = contexts.carrier_of(connection)
    return nullcontext() if carrier is None else carrier.carrying(text)


def _migrate(
    original: Any, self: Any, state: Any, schema_editor: Any, *args: Any, **kwargs: Any
) -> Any:
    """Receivers are not called while a migration changes tables and rows."""
    with watch.migrating(schema_editor.connection):
        return original(self, state, schema_editor, *args, **kwargs)


def _extend_related_managers() -> None:
    """The managers of many-to-many fields are classes that a function of Django's makes."""
    original: Any = related_descriptors.create_forward_many_to_many_manager
    if getattr(original, APPLIED, False):
        return

    @functools.wraps(original)
    def create(superclass: Any, rel: Any, reverse: Any) -> Any:
        made = original(superclass, rel, reverse)
        for name in compat.M2M_CHANGED_SENDERS:
            patch(made, name, _link)
        return made

    setattr(create, APPLIED, True)
    related_descriptors.create_forward_many_to_many_manager = create


def _link(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    return paths.link(functools.partial(original, self), self, *args, **kwargs)


# TRUNCATE by Django's own flush.


def _execute_sql_flush(original: Any, self: Any, sql_list: Any) -> Any:
    """``flush`` and ``TransactionTestCase`` mean to empty the database.

    Rules on deletion rest, and what waits in the outbox for rows that are gone goes with them.
    """
    if not sql_list:
        return original(self, sql_list)
    mute = "SELECT set_config('bulksafe.muted', '{*}', true)"
    own = schema.EMPTY if schema.exists(self.connection.alias) else []
    return original(self, [mute, *sql_list, *own])


# Meta.triggers.


def _register_triggers_from_meta() -> None:
    """pgtrigger raises TypeError for what is no trigger, and KeyError for a name that is taken.

    Both end ``django.setup()``, so that no system check could say what is wrong.
    """
    if features.model_meta():  # type: ignore[no-untyped-call]
        register_meta_triggers()
