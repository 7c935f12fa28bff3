"""``Capture``: every change of a table that has critical receivers is kept for them."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from pgtrigger import registry

from bulksafe.declarations import receivers
from bulksafe.declarations.base import Invariant
from bulksafe.declarations.lineage import lineage
from bulksafe.declarations.receivers import AFTER_COMMIT, DELETE, IN_TRANSACTION, UPDATE, Receiver
from bulksafe.declarations.registry import proxy_of

if TYPE_CHECKING:
    from django.apps import AppConfig
    from django.db import models

NAME = "bulksafe_capture"


class Capture(Invariant):
    """No committed change of a row misses the receivers that are called for it.

    Nobody writes one: the first receiver of a model puts it on the model, and all receivers share
    it. What it captures is looked up when it is compiled.
    """

    def __init__(self, *, name: str = NAME) -> None:
        super().__init__(name=name)

    def default_message(self, label: str) -> str:
        return (
            "TRUNCATE leaves no rows behind that receivers for deletion could be called for. "
            "Delete the rows, or mute the capture for this transaction."
        )


def streams(model: type[models.Model]) -> list[tuple[type[models.Model], tuple[str, ...]]]:
    """Whose rows, and which of their changes, the capture on the table of ``model`` keeps.

    The rows of the model itself and, for updates, those of its children in multi-table inheritance:
    a part of them lies in this table.
    """
    found = []
    for operations, stream in _candidates(model):
        wanted = {op for receiver in receivers.of_model(stream) for op in receiver.operations}
        kept = tuple(operation for operation in operations if operation in wanted)
        if kept:
            found.append((stream, kept))
    return found


def _candidates(
    model: type[models.Model],
) -> list[tuple[tuple[str, ...], type[models.Model]]]:
    concrete = model._meta.concrete_model or model
    children = sorted(
        (
            child
            for child in concrete._meta.apps.get_models()
            if not child._meta.proxy and concrete in child._meta.all_parents
        ),
        key=lambda child: child._meta.label,
    )
    every = (receivers.INSERT, UPDATE, DELETE)
    return [(every, concrete), *(((UPDATE,), child) for child in children)]


def attach(receiver: Receiver) -> None:
    """Put a capture on every table that holds a part of the receiver's rows."""
    if receiver.run not in {AFTER_COMMIT, IN_TRANSACTION}:
        return
    for model in receiver.models():
        for table in lineage(model):
            if not _has_capture(table):
                _attach_to(table, receiver)


def attach_all() -> None:
    """Attach what was declared before the models were loaded."""
    for receiver in receivers.receivers:
        attach(receiver)


def _has_capture(model: type[models.Model]) -> bool:
    registered: Any = registry.registered()
    return any(
        isinstance(trigger, Capture) and carrier._meta.db_table == model._meta.db_table
        for carrier, trigger in registered
    )


def _attach_to(model: type[models.Model], receiver: Receiver) -> None:
    app = migrated_in(model, receiver)
    carrier = model
    if app is not None and (model._meta.auto_created or app is not _owner(model)):
        carrier = proxy_of(model, app)
    capture = Capture()
    capture.declared_for = model._meta.label
    capture.register(carrier)


def migrated_in(model: type[models.Model], receiver: Receiver) -> AppConfig | None:
    """The app whose migrations get the capture of a model; None if the model's is not installed.

    The model's, if its migrations are the project's to write, or else the receiver's.
    """
    declaring, owner = _declaring(receiver), _owner(model)
    if owner is None or declaring is None or declaring is owner or is_installed_package(declaring):
        return owner
    is_own = not model._meta.auto_created and not is_installed_package(owner)
    return owner if is_own else declaring


def is_lost(model: type[models.Model], receiver: Receiver) -> bool:
    """Whether the migration would go to an installed package, which the next installation replaces.

    A package that declares receivers of its own models brings the migration along.
    """
    app = migrated_in(model, receiver)
    return app is not None and is_installed_package(app) and app is not _declaring(receiver)


def _declaring(receiver: Receiver) -> AppConfig | None:
    """The app that declares it, which may do so with a function of another one's."""
    found = apps.get_containing_app_config(receiver.declared_in)
    return found or apps.get_containing_app_config(receiver.module)


def _owner(model: type[models.Model]) -> AppConfig | None:
    """The app that a model belongs to; of an automatic table, that of the many-to-many field.

    None if it is not installed, as under settings that a test has overridden.
    """
    declaring: Any = model._meta.auto_created or model
    return apps.app_configs.get(declaring._meta.app_label)


def is_installed_package(app: AppConfig) -> bool:
    return app.name.startswith("django.") or _is_installed(app.path)


@cache
def _is_installed(path: str) -> bool:
    paths = sysconfig.get_paths()
    installed = {Path(paths[key]).resolve() for key in ("purelib", "platlib", "stdlib")}
    return not installed.isdisjoint(Path(path).resolve().parents)


receivers.listeners.append(attach)
