"""System checks: what is wrong with a declaration, before ``makemigrations`` and ``migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core import checks

from bulksafe import conf, planning
from bulksafe.declarations import Declared, Invariant, declared
from bulksafe.declarations.registry import refused_targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig

_LEVELS = {"E": checks.Error, "W": checks.Warning, "I": checks.Info}


def message(id: str, fact: str, fix: str, obj: Any = None) -> checks.CheckMessage:
    return _LEVELS[id[0]](fact, hint=fix, obj=obj, id=f"bulksafe.{id}")


class _Where:
    """What a check message is about, as the console shows it."""

    def __init__(self, item: Declared) -> None:
        self.item = item

    def __str__(self) -> str:
        return self.item.label


@checks.register("bulksafe")
def check_settings(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[checks.CheckMessage]:
    found = [
        message("E009", fact, fix) for fact, fix in conf.problems(getattr(settings, "BULKSAFE", {}))
    ]
    if not apps.is_installed("pgtrigger"):
        found.append(
            message(
                "E001",
                "“pgtrigger” is not in INSTALLED_APPS: makemigrations would not see any invariant.",
                "Add 'pgtrigger' to INSTALLED_APPS, before 'bulksafe'.",
            )
        )
    return found


@checks.register(checks.Tags.models)
def check_declarations(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Everything that planning says about each declaration."""
    return [
        *_check_planned(app_configs),
        *_check_rejected(app_configs),
        *_check_targets(),
    ]


def _in(app_configs: Sequence[AppConfig] | None, model: Any) -> bool:
    return app_configs is None or model._meta.app_config in app_configs


def _check_planned(app_configs: Sequence[AppConfig] | None) -> Iterator[checks.CheckMessage]:
    for item in declared():
        if _in(app_configs, item.model):
            for problem in planning.problems_of(item.invariant, item.model):
                yield message(problem.id, problem.fact, problem.fix, _Where(item))


def _check_rejected(app_configs: Sequence[AppConfig] | None) -> Iterator[checks.CheckMessage]:
    for model, invariant, reason in Invariant.rejected:
        if _in(app_configs, model):
            yield message(
                "E005",
                f"Two triggers on “{model._meta.db_table}” have the name “{invariant.name}”: {reason}",
                "Give one of them another name=….",
                _Where(Declared(model, invariant)),
            )


def _check_targets() -> Iterator[checks.CheckMessage]:
    for target, reason in refused_targets:
        yield message(
            "E008",
            f"bulksafe.register({target!r}, …) registered nothing: {reason}.",
            "Pass an installed model, or its label “app.Model”, and invariants, from a module of your app.",
        )
