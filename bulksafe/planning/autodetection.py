"""What ``makemigrations`` must know about invariants beyond what pgtrigger tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.migrations.autodetector import OperationDependency
from pgtrigger.migrations import AddTrigger

if TYPE_CHECKING:
    from django.db.migrations.operations.base import Operation


class InvariantsMixin:
    """Mixed in before pgtrigger's autodetector."""

    def add_operation(
        self,
        app_label: str,
        operation: Operation,
        dependencies: Any = None,
        beginning: bool = False,
    ) -> None:
        """A trigger comes after the columns that are added with it.

        Otherwise a foreign key to another app's new model, which Django may move to a later
        migration, could leave the trigger behind in an earlier one.
        """
        if isinstance(operation, AddTrigger):
            model_name = operation.model_name.lower()
            added = sorted(self.new_field_keys - self.old_field_keys)  # type: ignore[attr-defined]
            dependencies = [
                *(dependencies or ()),
                *(
                    OperationDependency(app, model, field, OperationDependency.Type.CREATE)
                    for app, model, field in added
                    if (app, model) == (app_label, model_name)
                ),
            ]
        super().add_operation(app_label, operation, dependencies, beginning)  # type: ignore[misc]
