"""What ``makemigrations`` must know about invariants beyond what pgtrigger tells it."""

from __future__ import annotations

from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any

from django.db.migrations.autodetector import OperationDependency
from django.db.migrations.operations import CreateModel, DeleteModel, RenameModel
from pgtrigger.migrations import AddTrigger, RemoveTrigger

from bulksafe import operations
from bulksafe.planning.attaching import ATTACHED, Attaching, changes_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.migrations.operations.base import Operation


#: Stands for a model's triggers where Django has the name of a field.
_TRIGGERS = "Meta.triggers"


class InvariantsMixin:
    """Mixed in before pgtrigger's autodetector."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._converted: frozenset[str] = frozenset()

    def _detect_changes(self, convert_apps: Any = None, graph: Any = None) -> Any:
        self._converted = frozenset(convert_apps or ())
        if graph is not None:
            # An app without models has no other sign of its earlier migrations.
            self.existing_apps |= {app for app, _ in graph.nodes}  # type: ignore[attr-defined]
        return super()._detect_changes(convert_apps, graph)  # type: ignore[misc]

    def _sort_migrations(self) -> None:
        """Between the operations of an app come ours: removals first, and additions last.

        Django splits migrations where an operation waits for another app: in the middle of an app's
        operations, ours could wait for what waits for those behind them.
        """
        planned = Attaching(self, self._converted).planned()
        generated = self.generated_operations  # type: ignore[attr-defined]
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
        dependencies: Any = None,
        beginning: bool = False,
    ) -> None:
        dependencies = [*(dependencies or ()), *self._further_dependencies(app_label, operation)]
        super().add_operation(app_label, operation, dependencies, beginning)  # type: ignore[misc]

    def _optimize_migrations(self) -> None:
        """Django's optimizer compares each operation with all others; ours, at both ends, stay."""
        ends = {}
        for migration in chain.from_iterable(self.migrations.values()):  # type: ignore[attr-defined]
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
            # Most of what is asked: each operation is compared with all others.
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
                # What needs a new model is content with a renamed one.
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
                return self._added_fields(app_label, operation.model_name.lower())
            case DeleteModel():
                alter = OperationDependency.Type.ALTER
                return [OperationDependency(app_label, operation.name, _TRIGGERS, alter)]
        return ()

    def _added_fields(self, app_label: str, model_name: str) -> Iterator[OperationDependency]:
        """A trigger comes after the columns that are added with it.

        Otherwise a foreign key to another app's new model, which Django may move to a later
        migration, could leave the trigger behind in an earlier one.
        """
        for app, model, field in sorted(self.new_field_keys - self.old_field_keys):  # type: ignore[attr-defined]
            if (app, model) == (app_label, model_name):
                yield OperationDependency(app, model, field, OperationDependency.Type.CREATE)


def _is_ours(operation: Operation) -> bool:
    return isinstance(operation, operations.AddTrigger | operations.RemoveTrigger)
