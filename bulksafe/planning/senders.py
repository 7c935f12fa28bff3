"""Checks the senders of a critical receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.db import connections, models, router
from django.db.models.signals import m2m_changed

from bulksafe.declarations.capture import home_app, is_installed_package, lost_to
from bulksafe.declarations.senders import ModelsOf
from bulksafe.declarations.through import links
from bulksafe.planning.problems import Problem, did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.apps import AppConfig

    from bulksafe.declarations import Receiver


def problems(receiver: Receiver) -> Iterator[Problem]:
    """All problems of the ``sender`` argument."""
    if not receiver.senders:
        yield Problem(
            "E104",
            "The receiver has no sender: it would be for every model, and every table would be "
            "captured.",
            "Name the models: sender=Order, sender=[Order, Invoice], an abstract base, or all "
            f"models of an app: sender=bulksafe.models_of({_home_of(receiver)!r}).",
        )
    if receiver.app_label and receiver.app_label not in list(apps.app_configs):
        yield unknown_app(receiver.app_label)
    for sender in receiver.senders:
        yield from _problems_of(receiver, sender)


def _problems_of(receiver: Receiver, sender: object) -> Iterator[Problem]:
    found = receiver.models_for(sender)
    if not found or isinstance(sender, ModelsOf):
        yield from (Problem("E105", *wrong) for wrong in _unresolved(receiver, sender))
    for model in found:
        alias = router.db_for_write(model)
        if alias and connections[alias].vendor != "postgresql":
            yield Problem(
                "E105",
                f"{model._meta.label} is written to the database “{alias}”, which is not "
                f"PostgreSQL ({connections[alias].vendor}).",
                "Route the model to a PostgreSQL database, or keep Django's @receiver.",
            )
        if receiver.signal_name == "m2m_changed" and links(model) is None:
            yield Problem(
                "E114",
                f"{model._meta.label} is not the table of a many-to-many field of Django's.",
                "Pass the through model: sender=Article.tags.through. Of a field that is no "
                "ManyToManyField, as django-taggit's, take post_save and post_delete.",
            )
        package = None if receiver.is_emit else lost_to(model, receiver)
        if package is not None:
            yield lost_migration(model, package)


def _home_of(receiver: Receiver) -> str:
    app = home_app(receiver)
    return app.label if app else "shop"


def _unresolved(receiver: Receiver, sender: object) -> Iterator[tuple[str, str]]:
    if not isinstance(sender, ModelsOf):
        yield _unresolved_model(sender)
        return
    for label in sender.app_labels:
        if label not in apps.app_configs:
            yield f"models_of({label!r}): no installed app has this label.", _app_meant(label)
        elif not receiver.models_for(ModelsOf((label,))):
            kind = "many-to-many table" if receiver.signal is m2m_changed else "model with a table"
            yield f"models_of({label!r}): the app has no {kind}.", "Leave its label out."


def _app_meant(label: str) -> str:
    labels = {app.name: app.label for app in apps.get_app_configs()}
    known = ", ".join(sorted(_own_apps()))
    meant = labels.get(label, label)
    return did_you_mean(meant, labels.values(), f"Pass one of {known or 'them'}.")


def _unresolved_model(sender: object) -> tuple[str, str]:
    if isinstance(sender, str):
        known = [model._meta.label for model in apps.get_models(include_auto_created=True)]
        return (
            f"There is no model {sender!r} with a table.",
            did_you_mean(sender, known, "Write the label “app.Model” of an installed model."),
        )
    meta = getattr(sender, "_meta", None)
    if not (isinstance(sender, type) and issubclass(sender, models.Model)) or meta is None:
        return (f"The sender {shown(sender)} is not a model.", "Pass a model, or its label.")
    if meta.swapped:
        return (f"{meta.label} is swapped out for {meta.swapped}.", f"Pass {meta.swapped!r}.")
    if meta.abstract:
        return (
            f"The abstract model {meta.label} has no child with a table.",
            "Pass a concrete model, or install the app of the children.",
        )
    return (
        f"{meta.label} is unmanaged: migrations do not create its table, and it may be a view.",
        "Pass the model that owns the table, or set managed = True.",
    )


def lost_migration(model: type[models.Model] | str, package: AppConfig) -> Problem:
    """Report that the app of the migration is an installed package."""
    return Problem(
        "E122",
        f"The trigger of {shown_model(model)} would go to the installed package {package.name}, "
        "whose migrations the next version replaces.",
        "Declare it in one of your apps, or name one with app_label=….",
    )


def shown_model(model: type[models.Model] | str) -> str:
    """The label of a model or label."""
    return model if isinstance(model, str) else str(model._meta.label)


def unknown_app(app_label: object) -> Problem:
    """Report that ``app_label=`` is not an installed app."""
    known = _own_apps()
    fix = did_you_mean(str(app_label), known, f"Pass one of {', '.join(sorted(known)) or 'them'}.")
    fact = f"app_label={shown(app_label)} is not the label of an installed app."
    return Problem("E124", fact, fix)


def _own_apps() -> list[str]:
    """The labels of the apps of the project."""
    return [label for label, app in apps.app_configs.items() if not is_installed_package(app)]
