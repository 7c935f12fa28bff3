"""Patches of migrations: attached triggers follow their tables and models."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pgtrigger.migrations
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django.db.migrations.migration import Migration
from django.db.migrations.state import ProjectState, StateApps

from bulksafe import attached, inspection, lock_waits
from bulksafe.compiler import Trigger
from bulksafe.outbox import schema
from bulksafe.patches.patching import Patch, extend_cached_property
from bulksafe.planning import autodetection
from bulksafe.rendering import quoting
from bulksafe.writer import attaching

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.models import Field, Model

    from bulksafe.patches.patching import Original


def _migrate(
    original: Original[ProjectState],
    self: Migration,
    state: ProjectState,
    schema_editor: BaseDatabaseSchemaEditor,
    *args: Any,
    **kwargs: Any,
) -> ProjectState:
    with attaching.migrating(schema_editor.connection):
        return original(self, state, schema_editor, *args, **kwargs)


def _limited(verb: str, *, drops: bool) -> Callable[..., None]:
    """A replacement of pgtrigger's function that creates or removes a trigger."""

    def run(
        original: Original[None],
        schema_editor: BaseDatabaseSchemaEditor,
        model: type[Model],
        trigger: object,
    ) -> None:
        work = partial(original, schema_editor, model, trigger)
        if not isinstance(trigger, Trigger):
            work()
            return
        what = f"{verb} trigger {trigger.name} on {model._meta.label}"
        table = quoting.relation(model._meta.db_table)
        lock_waits.migrate(schema_editor, work, what, table, drops=drops)

    return run


# Tables.


def _alter_field(
    original: Original[None],
    self: DatabaseSchemaEditor,
    model: type[Model],
    old: Field[Any, Any],
    new: Field[Any, Any],
    *args: Any,
    **kwargs: Any,
) -> None:
    with inspection.triggers_put_aside(self, model, old, new):
        original(self, model, old, new, *args, **kwargs)
    if old.column != new.column:
        statement = schema.rename_in_images(model, str(old.column), str(new.column))
        self.execute(statement, params=None)


def _create_model(original: Original[None], self: DatabaseSchemaEditor, model: type[Model]) -> None:
    original(self, model)
    for trigger in attached.on_model(model):
        self.execute(trigger.compile(model).install_sql, params=None)


def _delete_model(original: Original[None], self: DatabaseSchemaEditor, model: type[Model]) -> None:
    for trigger in (*(getattr(model._meta, "triggers", None) or ()), *attached.on_model(model)):
        if isinstance(trigger, Trigger):
            self.execute(trigger.compile(model).uninstall_sql, params=None)
    # Such as tables of an app that was removed from INSTALLED_APPS.
    for statement in () if self.collect_sql else inspection.removing_unknown(self, model):
        self.execute(statement, params=None)
    original(self, model)


# Attached triggers follow the models of a migration state.


def _apps(original: Original[StateApps], state: ProjectState) -> StateApps:
    rendered = original(state)
    attached.link(state, rendered)
    return rendered


def _clone_state(original: Original[ProjectState], self: ProjectState) -> ProjectState:
    copied = original(self)
    attached.carry(self, copied)
    return copied


def _rename_model(
    original: Original[None], self: ProjectState, app_label: str, old_name: str, new_name: str
) -> None:
    """Automatic through tables are named after their model."""
    model = self.models[app_label, old_name.lower()]
    pairs = [((app_label, old_name.lower()), (app_label, new_name.lower()))]
    pairs += [
        (attached.through_key(model, name), attached.through_key(model, name, new_name))
        for name in attached.automatic_links(model)
    ]
    # Django later removes the model of the old name, with its attached triggers.
    attachments = attached.of(self)
    attachments.rename(pairs)
    original(self, app_label, old_name, new_name)
    attachments.rename(pairs)
    autodetection.repoint_proxies(self, *pairs[0])


def _remove_model(
    original: Original[None], self: ProjectState, app_label: str, model_name: str
) -> None:
    model = self.models[app_label, model_name]
    links = [attached.through_key(model, name) for name in attached.automatic_links(model)]
    original(self, app_label, model_name)
    attached.of(self).drop([(app_label, model_name), *links])


def _rename_field(  # noqa: PLR0917  (Django's own signature)
    original: Original[None],
    self: ProjectState,
    app_label: str,
    model_name: str,
    old_name: str,
    new_name: str,
) -> None:
    model = self.models[app_label, model_name]
    if old_name in attached.automatic_links(model):
        old, new = (attached.through_key(model, name) for name in (old_name, new_name))
        attached.of(self).rename([(old, new)])
    original(self, app_label, model_name, old_name, new_name)


def _remove_field(
    original: Original[None], self: ProjectState, app_label: str, model_name: str, name: str
) -> None:
    model = self.models[app_label, model_name]
    if name in attached.automatic_links(model):
        attached.of(self).drop([attached.through_key(model, name)])
    original(self, app_label, model_name, name)


LATE = (
    *(
        Patch(
            pgtrigger.migrations,
            name,
            replacement,
            "Limits the wait for the table's lock, and has sqlmigrate name that lock.",
        )
        for name, replacement in (
            ("_add_trigger", _limited("Create", drops=False)),
            ("_remove_trigger", _limited("Remove", drops=True)),
        )
    ),
    *(
        Patch(
            Migration,
            name,
            _migrate,
            "Receivers are not called while a migration changes tables and rows.",
        )
        for name in ("apply", "unapply")
    ),
    Patch(
        DatabaseSchemaEditor,
        "_alter_field",
        _alter_field,
        "PostgreSQL alters no column that a trigger's WHEN clause uses: the triggers are put "
        "aside. Events in the outbox name columns, and get a column's new name.",
    ),
    Patch(
        DatabaseSchemaEditor,
        "create_model",
        _create_model,
        "A table that a migration restores gets the triggers that other apps had attached.",
    ),
    Patch(
        DatabaseSchemaEditor,
        "delete_model",
        _delete_model,
        "DROP TABLE drops the triggers of a table, but not their functions.",
    ),
    Patch(
        ProjectState,
        "apps",
        _apps,
        "Models find their attached triggers through their state: schema editors get no state. No "
        "public API can add to this cached property.",
        extend_cached_property,
    ),
    *(
        Patch(ProjectState, name, replacement, "Attached triggers follow their model.")
        for name, replacement in (
            ("clone", _clone_state),
            ("rename_model", _rename_model),
            ("remove_model", _remove_model),
            ("rename_field", _rename_field),
            ("remove_field", _remove_field),
        )
    ),
)
