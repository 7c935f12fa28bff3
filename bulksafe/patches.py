"""Every place where Django or pgtrigger is changed: what, and why.

tests/integration/test_patches.py fails where a new release of either moves what is patched.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pgtrigger.apps
from django.core import management
from django.core.management.commands import makemigrations, migrate
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql import operations
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper
from django.db.migrations import autodetector
from django.db.migrations.migration import Migration
from django.db.migrations.state import ProjectState, StateApps
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector
from django.db.models.fields import related_descriptors
from django.db.models.options import Options
from django.db.models.signals import ModelSignal
from django.utils.functional import cached_property
from pgtrigger import features, runtime

from bulksafe import attached, compat, contexts, inspection, validation, violations
from bulksafe.compiler import Trigger
from bulksafe.declarations import declared
from bulksafe.declarations.compute import computed_fields
from bulksafe.declarations.registry import register_meta_triggers
from bulksafe.outbox import schema
from bulksafe.planning import autodetection, dropping
from bulksafe.statements import text_of
from bulksafe.writer import connecting, paths, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_APPLIED = "_bulksafe_applied"


def apply() -> None:
    """Apply all patches; a second call changes nothing."""
    for receiver in (violations.raise_violations, contexts.carry, watch.attach):
        connection_created.connect(receiver, dispatch_uid=f"bulksafe.{receiver.__name__}")
        for connection in connections.all(initialized_only=True):
            receiver(sender=type(connection), connection=connection)
    _patch(DatabaseWrapper, "_commit", _commit)
    _patch(DatabaseWrapper, "_rollback", _rollback)
    _patch(CursorWrapper, "callproc", _callproc)
    _extend_cursors()
    _patch(Migration, "apply", _migrate)
    _patch(Migration, "unapply", _migrate)
    _patch(operations.DatabaseOperations, "execute_sql_flush", _execute_sql_flush)
    _patch(DatabaseSchemaEditor, "_alter_field", _alter_field)
    _patch(DatabaseSchemaEditor, "create_model", _create_model)
    _patch(DatabaseSchemaEditor, "delete_model", _delete_model)
    _extend_state()
    _extend_autodetector()
    _patch(management, "load_command_class", _load_command_class)
    for name in ("_inject_schema", "_inject_pgtrigger_ignore"):
        _patch(runtime, name, _inject)
    _patch(makemigrations.Command, "add_arguments", _add_arguments)
    _patch(makemigrations.Command, "handle", _make_migrations)
    _extend_returning()


def apply_early() -> None:
    """Apply what must be in place before models are loaded, and before pgtrigger's ``ready()``.

    Some packages wrap methods of a model as soon as it is prepared: they have to find these.
    """
    pgtrigger.apps.register_triggers_from_meta = _register_triggers_from_meta
    _patch(Model, "get_constraints", _get_constraints)
    _patch(Model, "_do_update", _do_update)
    _patch(QuerySet, "bulk_create", _bulk_create)
    _patch(QuerySet, "bulk_update", _bulk_update)
    _patch(Model, "save_base", _save_base)
    _patch(Model, "_save_table", _save_table)
    _patch(QuerySet, "update", _update)
    _patch(Collector, "delete", _collector_delete)
    _patch(Collector, "can_fast_delete", _can_fast_delete)
    _patch(ModelSignal, "connect", _connect)
    _patch(ModelSignal, "disconnect", _disconnect)
    _extend_related_managers()


def _patch(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Put ``replacement(original, self, …)`` in the place of ``owner.name``."""
    original = getattr(owner, name)
    if getattr(original, _APPLIED, False):
        return

    @functools.wraps(original)
    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return replacement(original, self, *args, **kwargs)

    setattr(patched, _APPLIED, True)
    setattr(owner, name, patched)


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
    if getattr(cached.func, _APPLIED, False):
        return

    def db_returning_fields(meta: Options[Any]) -> list[Any]:
        returning = cached.func(meta)
        return [*returning, *(f for f in computed_fields(meta.model) if f not in returning)]

    setattr(db_returning_fields, _APPLIED, True)
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
    if getattr(original, _APPLIED, False):
        return

    @functools.wraps(original)
    def create(superclass: Any, rel: Any, reverse: Any) -> Any:
        made = original(superclass, rel, reverse)
        for name in compat.M2M_CHANGED_SENDERS:
            _patch(made, name, _link)
        return made

    setattr(create, _APPLIED, True)
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


# Migrations.


def _alter_field(
    original: Any, self: Any, model: Any, old: Any, new: Any, *args: Any, **kwargs: Any
) -> Any:
    """PostgreSQL alters no column that a trigger's WHEN clause uses: put the triggers aside.

    Events that wait know a column by its name, and are told its new one.
    """
    with inspection.triggers_put_aside(self, model, old, new):
        result = original(self, model, old, new, *args, **kwargs)
    if old.column != new.column:
        statement = schema.rename_in_images(model, str(old.column), str(new.column))
        self.execute(statement, params=None)
    return result


def _create_model(original: Any, self: Any, model: Any) -> Any:
    """A table that a migration brings back has the triggers that other apps had attached to it."""
    result = original(self, model)
    for trigger in attached.on_model(model):
        self.execute(trigger.compile(model).install_sql, params=None)
    return result


def _delete_model(original: Any, self: Any, model: Any) -> Any:
    """A dropped table takes its triggers along, but not their functions."""
    for trigger in (*(getattr(model._meta, "triggers", None) or ()), *attached.on_model(model)):
        if isinstance(trigger, Trigger):
            self.execute(trigger.compile(model).uninstall_sql, params=None)
    # Such as those of an app that was removed from INSTALLED_APPS.
    for statement in () if self.collect_sql else inspection.removing_unknown(self, model):
        self.execute(statement, params=None)
    return original(self, model)


# What is attached follows the models of a migration state.


def _extend_state() -> None:
    """The models of a state find what is attached to them: schema editors are given no state.

    ``ProjectState.apps`` is a cached property that no public API can add to.
    """
    cached = ProjectState.__dict__["apps"]
    if getattr(cached.func, _APPLIED, False):
        return

    def apps(state: ProjectState) -> StateApps:
        rendered: StateApps = cached.func(state)
        attached.link(state, rendered)
        return rendered

    setattr(apps, _APPLIED, True)
    replacement = cached_property(apps)
    replacement.__set_name__(ProjectState, "apps")
    ProjectState.apps = replacement  # type: ignore[method-assign, assignment]
    _patch(ProjectState, "clone", _clone_state)
    _patch(ProjectState, "rename_model", _rename_model)
    _patch(ProjectState, "remove_model", _remove_model)
    _patch(ProjectState, "rename_field", _rename_field)
    _patch(ProjectState, "remove_field", _remove_field)


def _clone_state(original: Any, self: ProjectState) -> Any:
    copied = original(self)
    attached.carry(self, copied)
    return copied


def _rename_model(original: Any, self: Any, app_label: str, old_name: str, new_name: str) -> None:
    """Automatic through tables are named after their model."""
    model = self.models[app_label, old_name.lower()]
    pairs = [((app_label, old_name.lower()), (app_label, new_name.lower()))]
    pairs += [
        (attached.through_key(model, name), attached.through_key(model, name, new_name))
        for name in attached.automatic_links(model)
    ]
    # Django removes the model of the old name in the end, with what is attached to it.
    attachments = attached.of(self)
    attachments.rename(pairs)
    original(self, app_label, old_name, new_name)
    attachments.rename(pairs)
    autodetection.repoint_proxies(self, *pairs[0])


def _remove_model(original: Any, self: Any, app_label: str, model_name: str) -> None:
    model = self.models[app_label, model_name]
    links = [attached.through_key(model, name) for name in attached.automatic_links(model)]
    original(self, app_label, model_name)
    attached.of(self).drop([(app_label, model_name), *links])


def _rename_field(  # noqa: PLR0917  (Django's own signature)
    original: Any, self: Any, app_label: str, model_name: str, old_name: str, new_name: str
) -> None:
    model = self.models[app_label, model_name]
    if old_name in attached.automatic_links(model):
        old, new = (attached.through_key(model, name) for name in (old_name, new_name))
        attached.of(self).rename([(old, new)])
    original(self, app_label, model_name, old_name, new_name)


def _remove_field(original: Any, self: Any, app_label: str, model_name: str, name: str) -> None:
    model = self.models[app_label, model_name]
    if name in attached.automatic_links(model):
        attached.of(self).drop([attached.through_key(model, name)])
    original(self, app_label, model_name, name)


def _extend_autodetector() -> None:
    """Put our mixin before the autodetector that pgtrigger has put before Django's."""
    detector: Any = makemigrations.Command.autodetector
    if issubclass(detector, autodetection.InvariantsMixin):
        return
    extended: Any = type("MigrationAutodetector", (autodetection.InvariantsMixin, detector), {})
    for module in (makemigrations, migrate):
        # pgtrigger looks at the modules, Django at the commands.
        module.MigrationAutodetector = extended  # type: ignore[attr-defined]
        module.Command.autodetector = extended


def _load_command_class(original: Any, app_name: str, name: str) -> Any:
    """Commands of other packages have Django's autodetector, as ``migrate`` of django-tenants has.

    Django's check ``commands.E001`` demands the same for ``migrate`` and ``makemigrations``.
    """
    command = original(app_name, name)
    kind = type(command)
    if name in {"makemigrations", "migrate"} and (
        getattr(kind, "autodetector", None) is autodetector.MigrationAutodetector
    ):
        kind.autodetector = makemigrations.Command.autodetector
    return command


def _add_arguments(original: Any, self: Any, parser: Any) -> None:
    original(self, parser)
    parser.add_argument(
        dropping.OPTION,
        action="append",
        default=[],
        metavar="MODEL",
        help="Drop the capture of this model, whose critical receivers were removed "
        "(bulksafe). May be repeated.",
    )


def _make_migrations(
    original: Any, self: Any, *app_labels: Any, drop_capture: Sequence[str] = (), **options: Any
) -> Any:
    """The autodetector has to ask about captures, and does not know the command that runs it."""
    with dropping.requested(self, drop_capture):
        return original(self, *app_labels, **options)


# Settings that pgtrigger sends with a statement.


def _inject(original: Any, execute: Any, sql: Any, params: Any, *others: Any) -> Any:
    """pgtrigger puts a parameter before a statement; one without parameters may have a “%”.

    The triggers of captures do, so that ``pgtrigger install --schema`` would fail.
    """

    def run(text: Any, given: Any, *rest: Any) -> Any:
        if params is None and given is not None:
            setting, _, statement = text.partition("; ")
            text = f"{setting}; {statement.replace('%', '%%')}"
        return execute(text, given, *rest)

    return original(run, sql, params, *others)


# Meta.triggers.


def _register_triggers_from_meta() -> None:
    """pgtrigger raises TypeError for what is no trigger, and KeyError for a name that is taken.

    Both end ``django.setup()``, so that no system check could say what is wrong.
    """
    if features.model_meta():  # type: ignore[no-untyped-call]
        register_meta_triggers()
