"""Plans the migration operations for attached triggers.

pgtrigger compares ``Meta.triggers``, and writes to the app of the model. This module compares the
attached triggers of the migrations with the declarations, and writes to the declaring app.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from django.apps import apps
from django.db.migrations.autodetector import OperationDependency
from django.db.migrations.operations import (
    AlterField,
    DeleteModel,
    RemoveField,
    RenameField,
    RenameModel,
)
from django.db.migrations.operations.fields import FieldOperation
from django.db.migrations.operations.models import ModelOperation
from pgtrigger import features

from bulksafe import attached, operations
from bulksafe.declarations import declared
from bulksafe.declarations.capture import is_installed_package
from bulksafe.object_state import add_dependency, set_dependencies
from bulksafe.planning import dropping
from bulksafe.planning.dropping import Orphan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db.migrations.operations.base import Operation
    from django.db.migrations.questioner import MigrationQuestioner
    from django.db.migrations.state import ProjectState

    from bulksafe.attached import Attached, Key
    from bulksafe.compiler import Trigger

#: Dependency marker, in place of a field name: an attached trigger, or an operation on its table.
ATTACHED = "attached trigger"
#: The same for the existing migrations of an app; no operation matches it.
_EARLIER = "earlier migrations"

_CREATE, _ALTER = OperationDependency.Type.CREATE, OperationDependency.Type.ALTER


def changes_shape(operation: Operation, model_name: str) -> bool:
    """Whether the operation changes the table of a model of its app."""
    match operation:
        case FieldOperation():
            return bool(operation.model_name_lower == model_name)
        case RenameModel():
            return model_name in {operation.old_name_lower, operation.new_name_lower}
        case ModelOperation():
            return bool(operation.name_lower == model_name)
    return False


@dataclass(frozen=True)
class Planned:
    """An operation for the migrations of the app ``home``.

    Attributes:
        blocked: the operations, each with its app, that must wait for it.
    """

    home: str
    operation: operations.AddTrigger | operations.RemoveTrigger
    blocked: Sequence[Operation] = ()

    def wait(self, generated: Mapping[str, Sequence[Operation]]) -> None:
        """Add the dependencies of the blocked operations."""
        for operation in self.blocked:
            add_dependency(operation, _on_trigger(self))


def _on_trigger(item: Planned) -> OperationDependency:
    operation = item.operation
    return OperationDependency(item.home, operation.model, f"{ATTACHED}:{operation.name}", _ALTER)


@dataclass
class Plan:
    """Operations that precede all others of their apps, and operations that follow them."""

    first: list[Planned] = field(default_factory=list)
    last: list[Planned] = field(default_factory=list)


@dataclass(frozen=True)
class _Held:
    """A trigger that a migration has attached, and the model's label there."""

    label: str
    key: Key
    attached: Attached


class Detector(Protocol):
    """The parts of Django's autodetector that planning reads."""

    from_state: ProjectState
    to_state: ProjectState
    renamed_models: dict[Key, str]
    generated_operations: dict[str, list[Operation]]
    questioner: MigrationQuestioner


class Attaching:
    """The difference between the attached triggers of two states."""

    def __init__(self, detector: Detector, converted: frozenset[str]) -> None:
        self.before = detector.from_state
        self.after = detector.to_state
        self.renamed = detector.renamed_models
        self.generated = detector.generated_operations
        self.converted = converted
        self.questioner = detector.questioner
        self.plan = Plan()

    def planned(self) -> Plan:
        if not features.migrations():  # type: ignore[no-untyped-call]
            return self.plan
        held, wanted = self._held(), self._wanted()
        for orphan in dropping.kept(self._orphans(held), self.questioner):
            del held[orphan.key, str(orphan.trigger.name)]
        for key, name in sorted(held.keys() | wanted.keys()):
            self._settle(key, held.get((key, name), []), wanted.get((key, name)))
        return self.plan

    def _held(self) -> dict[tuple[Key, str], list[_Held]]:
        """The triggers attached by migrations, under the current model names."""
        now = {(app, old): (app, new) for (app, new), old in self.renamed.items()}
        found: dict[tuple[Key, str], list[_Held]] = {}
        for key, entries in attached.of(self.before).by_model.items():
            for entry in entries:
                item = _Held(".".join(key), key, entry)
                found.setdefault((now.get(key, key), str(entry.trigger.name)), []).append(item)
        return found

    def _wanted(self) -> dict[tuple[Key, str], tuple[str, Trigger]]:
        """The declared triggers of apps that have migrations."""
        unmigrated = self.before.real_apps - self.converted
        found = {}
        for item in declared():
            key = attached.key_of(item.model)
            home = item.invariant.home_on(item.model)
            if (
                item.invariant.is_attached
                and home in apps.app_configs
                and home not in unmigrated
                and attached.has_model(self.after, key)
            ):
                found[key, item.invariant.name] = home, item.invariant.compile(item.model)
        return found

    def _orphans(self, held: Mapping[tuple[Key, str], list[_Held]]) -> Iterator[Orphan]:
        """Captures whose table still exists but has no receiver left."""
        named = {(attached.key_of(item.model), item.invariant.name) for item in declared()}
        for place, items in held.items():
            trigger = items[0].attached.trigger
            if trigger.captures and place not in named and dropping.has_table(place[0]):
                homes = frozenset(item.attached.home for item in items)
                before = attached.model_in(self.before, items[0].key)
                yield Orphan(place[0], homes, trigger, before)

    def _settle(self, key: Key, held: list[_Held], wanted: tuple[str, Trigger] | None) -> None:
        """Plan the operations for the triggers of one name on one model."""
        by_home = {item.attached.home: item for item in held}
        home, trigger = wanted or ("", None)
        mine = by_home.pop(home, None)
        # Do not write migrations for an installed package.
        leaving = [
            item for other, item in by_home.items() if trigger is None or not _is_package(other)
        ]
        is_settled = trigger is None or (
            mine is not None
            and mine.attached.trigger == trigger
            and by_home.keys() <= mine.attached.replaces
        )
        # The old trigger may use a column that an operation removes or renames. So the trigger must
        # not exist while the operation runs, forwards or backwards.
        breaking = list(self._breaking(held[0].key)) if held else []
        early = leaving if trigger is None or breaking else []
        if breaking and mine and not is_settled:
            early = [mine, *early]
        for item in early:
            self.plan.first.append(self._removal(item, breaking))
        added: Planned | None = None
        if trigger is not None and not is_settled:
            added = self._addition(key, home, trigger, list(by_home))
            self.plan.last.append(added)
        for item in leaving:
            if item not in early:
                self.plan.last.append(self._removal(item, (), added))

    def _addition(self, key: Key, home: str, trigger: Trigger, others: list[str]) -> Planned:
        label = ".".join(key)
        extra = {"replaces": sorted(others)} if others else {}
        operation = operations.AddTrigger(model=label, trigger=trigger, **extra)
        # Reversed, it restores the triggers of the other apps, so their migrations come first.
        earlier = [OperationDependency(other, key[1], _EARLIER, _ALTER) for other in others]
        set_dependencies(operation, [*self._table(key), *own_tables(trigger), *earlier])
        return Planned(home, operation)

    def _removal(
        self, item: _Held, breaking: Sequence[Operation], after: Planned | None = None
    ) -> Planned:
        app_label, model_name = item.key
        operation = operations.RemoveTrigger(model=item.label, name=str(item.attached.trigger.name))
        # The migration that gave the model its current name.
        set_dependencies(operation, [OperationDependency(app_label, model_name, None, _CREATE)])
        if after is not None:
            add_dependency(operation, _on_trigger(after))
        return Planned(item.attached.home, operation, breaking)

    def _table(self, key: Key) -> Iterator[OperationDependency]:
        """The dependencies of a trigger: its table with the current columns."""
        owner = None if key in self.after.models else attached.owner_of(self.after, key)
        app_label, model_name = key
        if owner is not None:
            model_name = owner[0].name_lower
            yield OperationDependency(app_label, model_name, owner[1], _CREATE)
        yield OperationDependency(app_label, model_name, None, _CREATE)
        yield OperationDependency(app_label, model_name, ATTACHED, _ALTER)

    def _breaking(self, key: Key) -> Iterator[Operation]:
        """The planned operations that remove something that a trigger on the table may use."""
        owner = None if key in self.before.models else attached.owner_of(self.before, key)
        app_label, model_name = key
        if owner is not None:
            model_name = owner[0].name_lower
        current = {model_name} | {
            new for (app, new), old in self.renamed.items() if (app, old) == (app_label, model_name)
        }
        for operation in self.generated.get(app_label, ()):
            match operation:
                case DeleteModel() if operation.name_lower == model_name:
                    yield operation
                case RemoveField() | RenameField() | AlterField():
                    names = {getattr(operation, "old_name", ""), getattr(operation, "name", "")}
                    is_about = owner is None or owner[1] in names
                    if operation.model_name_lower in current and is_about:
                        yield operation
        if owner is not None:
            yield from self._renaming_ends(owner[0].fields[owner[1]], app_label, model_name)

    def _renaming_ends(self, link: Any, app_label: str, model_name: str) -> Iterator[Operation]:
        """The planned operations that rename a model, and thus a column of a through table."""
        target = link.remote_field.model
        target = target._meta.label if hasattr(target, "_meta") else str(target)
        target = target.lower() if "." in target else f"{app_label}.{target}".lower()
        ends = {f"{app_label}.{model_name}", target}
        for app, planned in self.generated.items():
            for operation in planned:
                if (
                    isinstance(operation, RenameModel)
                    and f"{app}.{operation.old_name_lower}" in ends
                ):
                    yield operation


def own_tables(trigger: object) -> list[OperationDependency]:
    """The dependency of captures and observed rules on the migrations of bulksafe's own tables."""
    if getattr(trigger, "captures", False) or getattr(trigger, "observes", False):
        return [OperationDependency("bulksafe", "outbox", None, _CREATE)]
    return []


def _is_package(label: str) -> bool:
    app = apps.app_configs.get(label)
    return app is not None and is_installed_package(app)
