"""What ``makemigrations`` must know about invariants beyond what pgtrigger tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.migrations.autodetector import OperationDependency
from django.db.migrations.operations import DeleteModel, RemoveField, RenameModel
from pgtrigger.migrations import AddTrigger, RemoveTrigger

from bulksafe import compiler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.migrations.operations.base import Operation
    from django.db.migrations.state import ModelState, ProjectState


#: Stands for a model's triggers where Django has the name of a field.
_TRIGGERS = "Meta.triggers"


class InvariantsMixin:
    """Mixed in before pgtrigger's autodetector."""

    def add_operation(
        self,
        app_label: str,
        operation: Operation,
        dependencies: Any = None,
        beginning: bool = False,
    ) -> None:
        dependencies = [*(dependencies or ()), *self._further_dependencies(app_label, operation)]
        super().add_operation(app_label, operation, dependencies, beginning)  # type: ignore[misc]

    def check_dependency(self, operation: Operation, dependency: OperationDependency) -> bool:
        match operation, dependency.type:
            case RenameModel(), OperationDependency.Type.CREATE if dependency.field_name is None:
                # What needs a new model is content with a renamed one: a proxy of it in another app
                # would otherwise not wait for the renaming.
                return operation.new_name_lower == dependency.model_name_lower
            case RemoveTrigger(), OperationDependency.Type.ALTER:
                return (operation.model_name.lower(), _TRIGGERS) == (
                    dependency.model_name_lower,
                    dependency.field_name,
                )
        return bool(super().check_dependency(operation, dependency))  # type: ignore[misc]

    def _further_dependencies(
        self, app_label: str, operation: Operation
    ) -> Iterable[OperationDependency]:
        match operation:
            case AddTrigger():
                return [
                    *self._added_fields(app_label, operation.model_name.lower()),
                    *_own_tables(operation.trigger),
                ]
            case DeleteModel():
                triggers = OperationDependency(
                    app_label, operation.name, _TRIGGERS, OperationDependency.Type.ALTER
                )
                return [triggers, *self._removed_proxies(f"{app_label}.{operation.name_lower}")]
            case RemoveField():
                return self._removed_proxies(self._through(app_label, operation))
            case RenameModel():
                return self._existing_proxies(f"{app_label}.{operation.old_name_lower}")
        return ()

    def _added_fields(self, app_label: str, model_name: str) -> Iterator[OperationDependency]:
        """A trigger comes after the columns that are added with it.

        Otherwise a foreign key to another app's new model, which Django may move to a later
        migration, could leave the trigger behind in an earlier one.
        """
        for app, model, field in sorted(self.new_field_keys - self.old_field_keys):  # type: ignore[attr-defined]
            if (app, model) == (app_label, model_name):
                yield OperationDependency(app, model, field, OperationDependency.Type.CREATE)

    def _removed_proxies(self, base: str) -> Iterator[OperationDependency]:
        """A table goes after the proxies through which other apps put triggers on it."""
        for app, model in self._proxies(base):
            if (app, model) not in self.new_proxy_keys:  # type: ignore[attr-defined]
                yield OperationDependency(app, model, None, OperationDependency.Type.REMOVE)

    def _existing_proxies(self, base: str) -> Iterator[OperationDependency]:
        """A proxy is made while its base has the old name, as a foreign key is in Django."""
        for app, model in self._proxies(base):
            if app != base.partition(".")[0]:
                yield OperationDependency(app, model, None, OperationDependency.Type.CREATE)

    def _proxies(self, base: str) -> list[tuple[str, str]]:
        states = self.from_state.models  # type: ignore[attr-defined]
        return [key for key in sorted(self.old_proxy_keys) if base in bases_of(states[key])]  # type: ignore[attr-defined]

    def _through(self, app_label: str, operation: RemoveField) -> str:
        """The label of the automatic through model that goes with the field, if there is one."""
        model = self.from_state.apps.get_model(app_label, operation.model_name)  # type: ignore[attr-defined]
        field = model._meta.get_field(operation.name)
        return field.remote_field.through._meta.label_lower if field.many_to_many else ""


def _own_tables(trigger: object) -> list[OperationDependency]:
    """A capture writes to bulksafe's own tables, which its migrations make."""
    if isinstance(trigger, compiler.Trigger) and trigger.captures:
        return [OperationDependency("bulksafe", "outbox", None, OperationDependency.Type.CREATE)]
    return []


def bases_of(state: ModelState) -> list[str]:
    """The labels of the bases that are models, in lower case."""
    return [base.lower() for base in state.bases if isinstance(base, str)]


def repoint_proxies(state: ProjectState, old: tuple[str, str], new: tuple[str, str]) -> None:
    """Let the proxies of a model that was renamed have it as their base again."""
    proxies = {
        key: model_state
        for key, model_state in state.models.items()
        if model_state.options.get("proxy") and ".".join(old) in bases_of(model_state)
    }
    for proxy in proxies.values():
        proxy.bases = tuple(
            ".".join(new) if isinstance(base, str) and base.lower() == ".".join(old) else base
            for base in proxy.bases
        )
    state.reload_models(list(proxies), delay=True)
