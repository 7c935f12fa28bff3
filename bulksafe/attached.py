"""The triggers that migrations put on models from outside, as a part of the migration state.

``Meta.triggers`` belongs to the app of the model, and so does Django's ``ModelState``. Triggers
attached by other apps are stored separately: each ``ProjectState`` has an ``Attachments``. It also
covers models that have no ``ModelState``: automatic through tables, and models of apps without
migrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.apps import apps as installed_apps

from bulksafe.object_state import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.apps.registry import Apps
    from django.db import models
    from django.db.migrations.state import ModelState, ProjectState, StateApps

    from bulksafe.compiler import Trigger

#: An app label and the lower-case name of a model.
Key = tuple[str, str]

_ATTRIBUTE = "_bulksafe_attachments"


@dataclass(frozen=True)
class Attached:
    """A trigger on a model, and the app whose migrations put it there.

    Attributes:
        home: the label of that app.
        trigger: the trigger.
        replaces: apps whose trigger of the same name this one replaces, whichever migration runs
            first.
    """

    home: str
    trigger: Trigger
    replaces: frozenset[str] = frozenset()


class Attachments:
    """All attached triggers of one migration state.

    Attributes:
        by_model: the triggers of each model, in the order of the migrations.
        moved: the new names of renamed models, None for deleted ones. A migration uses the model's
            name at the time it was written; the model's own app may rename or delete the model in a
            migration that runs earlier.
    """

    def __init__(self) -> None:
        self.by_model: dict[Key, tuple[Attached, ...]] = {}
        self.moved: dict[Key, Key | None] = {}

    def copy(self) -> Attachments:
        copied = Attachments()
        copied.by_model = dict(self.by_model)
        copied.moved = dict(self.moved)
        return copied

    def put(self, key: Key, attached: Attached) -> None:
        """Add a trigger; replaces a trigger of the same app and name."""
        name = str(attached.trigger.name)
        self.remove(key, attached.home, name)
        self.by_model[key] = (*self.by_model.get(key, ()), attached)

    def remove(self, key: Key, home: str, name: str) -> None:
        held = self.by_model.pop(key, ())
        left = tuple(a for a in held if (a.home, a.trigger.name) != (home, name))
        if left:
            self.by_model[key] = left

    def rename(self, pairs: list[tuple[Key, Key]]) -> None:
        """Move the triggers of renamed models to the new keys."""
        for old, new in pairs:
            held = self.by_model.pop(old, None)
            if held:
                self.by_model[new] = held
            self.moved[old] = new
            self.moved.pop(new, None)

    def drop(self, keys: list[Key]) -> None:
        """Forget models that were deleted."""
        for key in keys:
            self.by_model.pop(key, None)
            self.moved[key] = None

    def installed_on(self, key: Key) -> dict[str, Trigger]:
        """The triggers installed on the table, by name.

        If several apps attach one of a name, the replacing one wins; without one, the last one.
        """
        held = self.by_model.get(key, ())
        replaced = {
            (home, attached.trigger.name) for attached in held for home in attached.replaces
        }
        return {
            str(a.trigger.name): a.trigger
            for a in sorted(held, key=lambda a: (a.home, a.trigger.name) not in replaced)
        }


def of(state: ProjectState) -> Attachments:
    """The attachments of a migration state."""
    return attributes(state).setdefault(_ATTRIBUTE, Attachments())  # type: ignore[no-any-return]


def carry(source: ProjectState, copied: ProjectState) -> None:
    """Give the copy of a state a copy of its attachments."""
    attributes(copied)[_ATTRIBUTE] = of(source).copy()
    if "apps" in attributes(copied):
        link(copied, copied.apps)


def link(state: ProjectState, apps: StateApps) -> None:
    """Let the models of ``apps`` find the attachments of their state."""
    attributes(apps)[_ATTRIBUTE] = of(state)


def on_model(model: type[models.Model]) -> list[Trigger]:
    """The triggers that are attached to a historical model; none to a model of the code."""
    attachments = getattr(model._meta.apps, _ATTRIBUTE, None)
    if attachments is None:
        return []
    return list(attachments.installed_on(key_of(model)).values())


def key_of(model: type[models.Model]) -> Key:
    return model._meta.app_label, str(model._meta.model_name)


def locate(state: ProjectState, label: str) -> Key | None:
    """The key in ``state`` of the model a migration calls ``label``; None if deleted."""
    app_label, _, name = label.lower().partition(".")
    key: Key | None = (app_label, name)
    moved = of(state).moved
    while key in moved and not has_model(state, key):
        key = moved[key]
    return key


def has_model(state: ProjectState, key: Key) -> bool:
    return key in state.models or owner_of(state, key) is not None


def owner_of(state: ProjectState, key: Key) -> tuple[ModelState, str] | None:
    """The model and the many-to-many field that an automatic through table belongs to."""
    for (app_label, _), model_state in state.models.items():
        if app_label == key[0] and key[1].startswith(f"{model_state.name_lower}_"):
            for name in automatic_links(model_state):
                if through_key(model_state, name) == key:
                    return model_state, name
    return None


def automatic_links(model_state: ModelState) -> Iterator[str]:
    """The many-to-many fields whose through tables Django creates."""
    for name, field in model_state.fields.items():
        remote = field.remote_field
        if field.many_to_many and remote is not None and not getattr(remote, "through", None):
            yield name


def through_key(model_state: ModelState, field: str, model_name: str = "") -> Key:
    name = model_name or model_state.name
    return model_state.app_label, f"{name}_{field}".lower()


def model_in(state: ProjectState, key: Key) -> type[models.Model] | None:
    """The model class, or None.

    Django renders apps without migrations without their relations, so relations are read from the
    code.
    """
    registry: Apps = installed_apps if key[0] in state.real_apps else state.apps
    try:
        return registry.get_model(*key)
    except LookupError:
        return None
