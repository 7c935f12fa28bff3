"""``Capture``: stores every change of a table with critical receivers."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from pgtrigger import registry

from bulksafe.caching import models_of, per_model
from bulksafe.declarations import receivers
from bulksafe.declarations.base import Invariant
from bulksafe.declarations.lineage import lineage
from bulksafe.declarations.options import AFTER_COMMIT, IN_TRANSACTION
from bulksafe.declarations.receiver import Receiver
from bulksafe.declarations.signals import DELETE, INSERT, UPDATE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.apps import AppConfig
    from django.db import models

NAME = "bulksafe_capture"


class Capture(Invariant):
    """Every committed change of a row reaches its receivers.

    It is not declared by users: the first receiver of a model attaches it, and all receivers share
    it. The captured changes are determined when it is compiled.
    """

    def __init__(self, *, name: str = NAME) -> None:
        super().__init__(name=name)

    @property
    def is_attached(self) -> bool:
        return True

    def home_on(self, model: type[models.Model]) -> str:
        return home_of(model)

    def default_message(self, label: str) -> str:
        return (
            "TRUNCATE leaves no rows behind that receivers for deletion could be called for. "
            "Delete the rows, or mute the capture for this transaction."
        )


def streams(model: type[models.Model]) -> list[tuple[type[models.Model], tuple[str, ...]]]:
    """The models and changes that the capture on the table of ``model`` stores.

    These are rows of the model itself and, for updates, rows of its multi-table children, which are
    partly stored in this table.
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
            for child in models_of(concrete._meta.apps)
            if not child._meta.proxy and concrete in child._meta.all_parents
        ),
        key=lambda child: child._meta.label,
    )
    every = (INSERT, UPDATE, DELETE)
    return [(every, concrete), *(((UPDATE,), child) for child in children)]


def attach(receiver: Receiver) -> None:
    """Attach a capture to every table that stores a part of the receiver's rows."""
    if receiver.run not in {AFTER_COMMIT, IN_TRANSACTION}:
        return
    for model in receiver.models():
        for table in lineage(model):
            if not _has_capture(table):
                Capture().register(table)


def attach_all() -> None:
    """Attach captures for receivers that were declared before the models were loaded."""
    for receiver in receivers.receivers:
        attach(receiver)


def _has_capture(model: type[models.Model]) -> bool:
    try:
        registry.registered(Capture().get_uri(model))
    except KeyError:
        return False
    return True


@per_model(receivers.changes)
def home_of(model: type[models.Model]) -> str:
    """The label of the app whose migrations get the capture of a model.

    Candidates are the apps that declare receivers for the model. Project apps precede installed
    packages, then apps named by ``app_label=``, then the model's own app, then the alphabetical
    order. So the order of declaration does not matter.
    """
    owner = _owner(model)
    labels = [stream._meta.label_lower for _, stream in _candidates(model)]
    declaring = [
        (is_installed_package(app), not receiver.app_label, app is not owner, app.label)
        for receiver in _receivers_of(labels)
        for app in [home_app(receiver)]
        if app is not None
    ]
    if declaring:
        return min(declaring)[-1]
    return owner.label if owner else model._meta.app_label


def _receivers_of(labels: Iterable[str]) -> Iterable[Receiver]:
    found = (receiver for label in labels for receiver in receivers.of_label(label))
    return dict.fromkeys(filter(receivers.is_captured, found))


def lost_to(model: type[models.Model], receiver: Receiver) -> AppConfig | None:
    """The installed package that would get the migration, to be lost at the next upgrade.

    A package ships the migrations for its own receivers, but not for receivers of other apps.
    """
    home = apps.app_configs.get(home_of(model)) if receiver in receivers.captured() else None
    if home is None or not is_installed_package(home):
        return None
    return None if _declaring(receiver) is home else home


def home_app(receiver: Receiver) -> AppConfig | None:
    """The app that the receiver's ``app_label=`` names, or else the one that declares it.

    None if no installed app declares it.
    """
    named = [app for label, app in apps.app_configs.items() if label == receiver.app_label]
    return named[0] if named else _declaring(receiver)


def _declaring(receiver: Receiver) -> AppConfig | None:
    """The declaring app; the function may belong to a different app."""
    found = apps.get_containing_app_config(receiver.declared_in)
    return found or apps.get_containing_app_config(receiver.module)


def _owner(model: type[models.Model]) -> AppConfig | None:
    """The app of a model; for an automatic through table, the app of the many-to-many field.

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
