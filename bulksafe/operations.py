"""Migration operations for triggers on models of other apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management import CommandError
from django.db import connections, router
from django.db.migrations.operations import DeleteModel
from django.db.migrations.operations.base import Operation, OperationCategory

from bulksafe import attached, conf, lock_waits
from bulksafe.compiler import SWITCHED_OFF, CaptureTrigger
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db import models
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.migrations.state import ProjectState

    from bulksafe.compiler import Trigger


class _TriggerOperation(Operation):
    """Change the triggers of one name on one model from one migration state to the next.

    The difference of the two states decides, not the operation: while two apps attach triggers of
    one name, removing one of them installs the other.
    """

    reversible = True
    #: Assigned by the subclasses: the model's label in lower case, and the trigger's name.
    model: str
    name: str

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        key = attached.locate(to_state, self.model)
        if key is None:
            return
        before = attached.of(from_state).installed_on(key).get(self.name)
        after = attached.of(to_state).installed_on(key).get(self.name)
        model = attached.model_in(to_state, key)
        if before == after or not self._is_migrated(schema_editor.connection.alias, key, model):
            return

        def apply() -> None:
            is_off = _is_to_be_off(after, before, model, schema_editor)
            if before is not None:
                uninstall = before.compile(model) if model else before.in_any_table()
                schema_editor.execute(uninstall.uninstall_sql, params=None)
            if after is not None:
                schema_editor.execute(self._on(model, after, schema_editor), params=None)
                if is_off and model is not None:
                    schema_editor.execute(after.compile(model).switch_off_sql, params=None)

        table = quoting.relation(model._meta.db_table) if model is not None else self.model
        drops = before is not None
        lock_waits.migrate(schema_editor, apply, self.describe(), table, drops=drops)

    database_backwards = database_forwards

    def _is_migrated(self, using: str, key: attached.Key, model: type[models.Model] | None) -> bool:
        if connections[using].vendor != "postgresql":
            return False
        if model is None:
            return router.allow_migrate(using, key[0], model_name=key[1])
        concrete = model._meta.concrete_model or model
        return self.allow_migrate_model(using, concrete)

    def _on(
        self,
        model: type[models.Model] | None,
        trigger: Trigger,
        schema_editor: BaseDatabaseSchemaEditor,
    ) -> str:
        """The SQL that installs the trigger."""
        app_label = self.model.partition(".")[0]
        if model is None:
            raise LookupError(
                f"The trigger “{self.name}” is for {self.model}, and there is no such model at "
                f"this point of the migrations. Add the migration of “{app_label}” that creates "
                "the model to the dependencies of this migration."
            )
        table = model._meta.db_table
        if not schema_editor.collect_sql and not table_exists(
            table, schema_editor.connection.alias
        ):
            raise CommandError(
                f"The trigger “{self.name}” is for {self.model}, and the table “{table}” does not "
                "exist. If its app has no migrations, create its tables first: run “migrate "
                "--run-syncdb”."
            )
        return trigger.compile(model).install_sql

    def references_model(self, name: str, app_label: str) -> bool:
        """Covers through tables too: their names begin with the model's name."""
        app, _, own = self.model.partition(".")
        return app == app_label and (own == name.lower() or own.startswith(f"{name.lower()}_"))

    def reduce(self, operation: Operation, app_label: str) -> bool | list[Operation]:
        match operation:
            case _TriggerOperation() if (operation.model, operation.name) == (
                self.model,
                self.name,
            ):
                # Not to an empty list: an earlier migration may have attached a trigger with this
                # name.
                return [operation]
            case DeleteModel() if f"{app_label}.{operation.name_lower}" == self.model:
                return [operation]
        app, _, own = self.model.partition(".")
        reduced = super().reduce(operation, app_label)
        return reduced or not operation.references_model(own, app)


class AddTrigger(_TriggerOperation):
    """Attach a trigger to a model of any app.

    Args:
        model: the label of the model, ``"auth.user"``.
        trigger: the trigger; replaces a trigger of this app with the same name.
        replaces: the apps whose trigger of the same name this one replaces for good.
    """

    category = OperationCategory.ADDITION

    def __init__(self, model: str, trigger: Trigger, replaces: Iterable[str] = ()) -> None:
        self.model = model.lower()
        self.trigger = trigger
        self.replaces = frozenset(replaces)
        self.name = str(trigger.name)

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        key = attached.locate(state, self.model)
        if key is not None:
            entry = attached.Attached(app_label, self.trigger, self.replaces)
            attached.of(state).put(key, entry)

    def describe(self) -> str:
        return f"Create trigger {self.name} on {self.model}"

    @property
    def migration_name_fragment(self) -> str:
        return f"{self.model.partition('.')[2]}_{self.name.lower()}"


class RemoveTrigger(_TriggerOperation):
    """Remove a trigger that a migration of the same app attached to a model.

    Args:
        model: the label of the model, ``"auth.user"``.
        name: the name of the trigger.
    """

    category = OperationCategory.REMOVAL

    def __init__(self, model: str, name: str) -> None:
        self.model = model.lower()
        self.name = name

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        key = attached.locate(state, self.model)
        if key is not None:
            attached.of(state).remove(key, app_label, self.name)

    def describe(self) -> str:
        return f"Remove trigger {self.name} from {self.model}"

    @property
    def migration_name_fragment(self) -> str:
        return f"remove_{self.model.partition('.')[2]}_{self.name.lower()}"


def _is_to_be_off(
    after: Trigger | None,
    before: Trigger | None,
    model: type[models.Model] | None,
    schema_editor: BaseDatabaseSchemaEditor,
) -> bool:
    """Whether a capture is switched off in the transaction that installs it.

    A capture that is replaced stays as it is; a new one of a model in rollout is switched off.
    """
    if not isinstance(after, CaptureTrigger):
        return False
    is_off = None
    if before is not None and model is not None and not schema_editor.collect_sql:
        is_off = is_switched_off(before.compile(model), schema_editor.connection.alias)
    if is_off is not None:
        return is_off
    return before is None and conf.is_in_rollout(after.invariant.partition(":")[0])


_SWITCH = """
    SELECT strpos(pg_get_functiondef(t.tgfoid), %s) > 0
    FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = to_regclass(%s) AND t.tgname = %s AND t.tgparentid = 0
"""


def is_switched_off(capture: Trigger, using: str) -> bool | None:
    """Whether an installed capture is switched off; None if it is not installed."""
    with connections[using].cursor() as cursor:
        cursor.execute(_SWITCH, [SWITCHED_OFF, quoting.relation(capture.table), capture.pgid])
        row = cursor.fetchone()
        return None if row is None else bool(row[0])


def table_exists(table: str, using: str) -> bool:
    """Whether ``using`` has a table, given as ``db_table``."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [quoting.relation(table)])
        return bool(cursor.fetchone()[0])
