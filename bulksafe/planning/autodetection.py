"""Extends pgtrigger's autodetector of ``makemigrations`` for invariants."""

from __future__ import annotations

from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any

from django.db.migrations.autodetector import OperationDependency
from django.db.migrations.operations import CreateModel, DeleteModel, RenameModel
from pgtrigger.migrations import AddTrigger, RemoveTrigger

from bulksafe import operations
from bulksafe.planning.attaching import ATTACHED, Attaching, changes_shape, own_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.migrations.graph import MigrationGraph
    from django.db.migrations.migration import Migration
    from django.db.migrations.operations.base import Operation
    from django.db.migrations.questioner import MigrationQuestioner
    from django.db.migrations.state import ModelState, ProjectState

    from bulksafe.attached import Key


#: Dependency marker for a model's triggers, in place of a field name.
_TRIGGERS = "Meta.triggers"


class InvariantsMixin:
    """Mixin for pgtrigger's autodetector."""

    # Attributes of Django's autodetector.
    from_state: ProjectState
    to_state: ProjectState
    questioner: MigrationQuestioner
    #: The apps with migrations.
    existing_apps: set[str]
    renamed_models: dict[Key, str]
    new_field_keys: set[tuple[str, str, str]]
    old_field_keys: set[tuple[str, str, str]]
    new_proxy_keys: set[Key]
    old_proxy_keys: set[Key]
    generated_operations: dict[str, list[Operation]]
    #: ``Migration`` objects; the stubs declare ``operations`` as a class attribute.
    migrations: dict[str, list[Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._converted: frozenset[str] = frozenset()

    def _detect_changes(
        self, convert_apps: Iterable[str] | None = None, graph: MigrationGraph | None = None
    ) -> dict[str, list[Migration]]:
        self._converted = frozenset(convert_apps or ())
        if graph is not None:
            # An app without models has no other trace of its earlier migrations.
            self.existing_apps |= {app for app, _ in graph.nodes}
        changes: dict[str, list[Migration]]
        changes = super()._detect_changes(convert_apps, graph)  # type: ignore[misc]
        return changes

    def _sort_migrations(self) -> None:
        """Place our operations around those of an app: removals first, additions last.

        Django splits migrations where an operation waits for another app. In the middle of an app's
        operations, ours could cause a circular wait.
        """
        planned = Attaching(self, self._converted).planned()
        generated = self.generated_operations
        for first in planned.first:
            first.wait(generated)
        super()._sort_migrations()  # type: ignore[misc]
        for item in reversed(planned.first):
            generated.setdefault(item.home, []).insert(0, item.operation)
        for item in planned.last:
            generated.setdefault(item.home, []).append(item.operation)

    def add_operation(
        self,
        app_label: str,
        operation: Operation,
        dependencies: Iterable[OperationDependency] | None = None,
        beginning: bool = False,
    ) -> None:
        dependencies = [*(dependencies or ()), *self._further_dependencies(app_label, operation)]
        super().add_operation(app_label, operation, dependencies, beginning)  # type: ignore[misc]

    def _optimize_migrations(self) -> None:
        """Keep our operations at both ends out of Django's optimizer, which compares all pairs."""
        ends = {}
        for migration in chain.from_iterable(self.migrations.values()):
            first = list(takewhile(_is_ours, migration.operations))
            rest = migration.operations[len(first) :]
            last = list(takewhile(_is_ours, reversed(rest)))[::-1]
            ends[migration] = first, last
            migration.operations = rest[: len(rest) - len(last)]
        super()._optimize_migrations()  # type: ignore[misc]
        for migration, (first, last) in ends.items():
            migration.operations = [*first, *migration.operations, *last]

    def check_dependency(self, operation: Operation, dependency: OperationDependency) -> bool:
        if isinstance(operation, CreateModel) and dependency.field_name != ATTACHED:
            # The most frequent case: each operation is compared with all others.
            return bool(super().check_dependency(operation, dependency))  # type: ignore[misc]
        match operation, dependency.type:
            case ((operations.AddTrigger() | operations.RemoveTrigger()), _):
                kind, _, name = str(dependency.field_name).partition(":")
                return (kind, name, dependency.model_name) == (
                    ATTACHED,
                    operation.name,
                    operation.model,
                )
            case RenameModel(), OperationDependency.Type.CREATE if dependency.field_name is None:
                # A dependency on a new model is met by a renamed one.
                return operation.new_name_lower == dependency.model_name_lower
            case RemoveTrigger(), OperationDependency.Type.ALTER:
                return (operation.model_name.lower(), _TRIGGERS) == (
                    dependency.model_name_lower,
                    dependency.field_name,
                )
            case _, OperationDependency.Type.ALTER if dependency.field_name == ATTACHED:
                return changes_shape(operation, dependency.model_name_lower)
        return bool(super().check_dependency(operation, dependency))  # type: ignore[misc]

    def _further_dependencies(
        self, app_label: str, operation: Operation
    ) -> Iterable[OperationDependency]:
        match operation:
            case AddTrigger():
                added = self._added_fields(app_label, operation.model_name.lower())
                return [*added, *own_tables(operation.trigger)]
            case DeleteModel():
                alter = OperationDependency.Type.ALTER
                triggers = OperationDependency(app_label, operation.name, _TRIGGERS, alter)
                return [triggers, *self._removed_proxies(f"{app_label}.{operation.name_lower}")]
            case RenameModel():
                return self._existing_proxies(f"{app_label}.{operation.old_name_lower}")
        return ()

    def _added_fields(self, app_label: str, model_name: str) -> Iterator[OperationDependency]:
        """Dependencies of a trigger on columns that are added with it.

        Otherwise a foreign key to another app's new model, which Django may move to a later
        migration, could leave the trigger behind in an earlier one.
        """
        for app, model, field in sorted(self.new_field_keys - self.old_field_keys):
            if (app, model) == (app_label, model_name):
                yield OperationDependency(app, model, field, OperationDependency.Type.CREATE)

    def _removed_proxies(self, base: str) -> Iterator[OperationDependency]:
        """A table is deleted after the proxies through which other apps attach triggers."""
        for app, model in self._proxies(base):
            if (app, model) not in self.new_proxy_keys:
                yield OperationDependency(app, model, None, OperationDependency.Type.REMOVE)

    def _existing_proxies(self, base: str) -> Iterator[OperationDependency]:
        """A proxy is created while its base has the old name, as Django does for foreign keys."""
        for app, model in self._proxies(base):
            if app != base.partition(".")[0]:
                yield OperationDependency(app, model, None, OperationDependency.Type.CREATE)

    def _proxies(self, base: str) -> list[Key]:
        states = self.from_state.models
        return [key for key in sorted(self.old_proxy_keys) if base in bases_of(states[key])]


def bases_of(state: ModelState) -> list[str]:
    """The labels of the bases that are models, in lower case."""
    return [base.lower() for base in state.bases if isinstance(base, str)]


def repoint_proxies(state: ProjectState, old: tuple[str, str], new: tuple[str, str]) -> None:
    """Point the proxies of a renamed model to the new name.

    Django does so with foreign keys, and not with the proxies of users.
    """
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


def _is_ours(operation: Operation) -> bool:
    return isinstance(operation, operations.AddTrigger | operations.RemoveTrigger)
