"""System checks: report wrong declarations before ``makemigrations`` and ``migrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core import checks

from bulksafe import conf, planning
from bulksafe.declarations import Declared, Invariant, declared, receivers
from bulksafe.declarations.registry import emits, misplaced, refused_apps, refused_targets
from bulksafe.planning import receivers as reception
from bulksafe.planning.problems import did_you_mean
from bulksafe.planning.senders import lost_migration, unknown_app

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from django.apps import AppConfig
    from django.db.models import Model

    from bulksafe.compat import PgTrigger

_LEVELS = {"E": checks.Error, "W": checks.Warning, "I": checks.Info}


def message(code: str, fact: str, fix: str, obj: object = None) -> checks.CheckMessage:
    """``fact`` and ``fix`` under the id that ``docs/errors.md`` explains."""
    hint = f"{fix} See docs/errors.md#bulksafe{code.lower()}."
    return _LEVELS[code[0]](fact, hint=hint, obj=obj, id=f"bulksafe.{code}")


class _Where:
    """The subject of a check message, as the console shows it."""

    def __init__(self, *items: Declared) -> None:
        self.items = items

    def __str__(self) -> str:
        return ", ".join(item.label for item in self.items)


@checks.register("bulksafe")
def check_settings(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Check the settings, whichever app is selected."""
    configured = getattr(settings, "BULKSAFE", {})
    return [
        *(message("E009", fact, fix) for fact, fix in conf.problems(configured)),
        *_check_rollout(),
        *_check_installed(),
    ]


def _check_rollout() -> Iterator[checks.CheckMessage]:
    """A misspelt label would leave its model out: the old release's commits would be refused."""
    models = apps.get_models(include_auto_created=True)
    known = {model._meta.label_lower: model._meta.label for model in models}
    for label in sorted(conf.rollout() or ()):
        if label not in known:
            fix = did_you_mean(label, known.values(), "List labels such as “shop.Order”.")
            fact = f"BULKSAFE['ROLLOUT'] lists {label!r}, and there is no such model."
            yield message("E009", fact, fix)


def _check_installed() -> Iterator[checks.CheckMessage]:
    if not _is_used():
        return
    if not apps.is_installed("pgtrigger"):
        yield message(
            "E001",
            "“pgtrigger” is not in INSTALLED_APPS: makemigrations would not see any invariant.",
            "Add 'pgtrigger' to INSTALLED_APPS, before 'bulksafe'.",
        )
    if not apps.is_installed("bulksafe"):
        yield message(
            "E012",
            "“bulksafe” is not in INSTALLED_APPS: its system checks and tables would be missing.",
            "Add 'bulksafe' to INSTALLED_APPS, after 'pgtrigger'.",
        )


def _is_used() -> bool:
    """Whether the project uses bulksafe; a program may merely import it."""
    return (
        apps.is_installed("pgtrigger")
        or apps.is_installed("bulksafe")
        or bool(receivers.receivers)
        or any(declared())
        or any(getattr(model._meta, "triggers", None) for model in apps.get_models())
    )


@checks.register(checks.Tags.models)
def check_declarations(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Report the problems that planning finds in each declaration."""
    return [
        *_check_planned(app_configs),
        *_check_rejected(app_configs),
        *_check_misplaced(app_configs),
        *_check_targets(),
    ]


@checks.register(checks.Tags.models)
def check_receivers(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Report wrong critical receivers and ``Emit``."""
    return [
        *_check_each_receiver(app_configs),
        *_check_emits(app_configs),
    ]


def _check_each_receiver(
    app_configs: Sequence[AppConfig] | None,
) -> Iterator[checks.CheckMessage]:
    listed = receivers.receivers
    for receiver in listed:
        if _declared_in(app_configs, receiver.module):
            for problem in reception.problems(receiver, listed):
                yield message(problem.id, problem.fact, problem.fix, _Named(receiver.name))


def _check_emits(app_configs: Sequence[AppConfig] | None) -> Iterator[checks.CheckMessage]:
    for model, emit in emits:
        if _in(app_configs, model):
            for problem in reception.emit_problems(emit):
                yield message(problem.id, problem.fact, problem.fix, model)


def _declared_in(app_configs: Sequence[AppConfig] | None, module: str) -> bool:
    return app_configs is None or apps.get_containing_app_config(module) in app_configs


class _Named:
    """A receiver, as the console shows it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


def _in(app_configs: Sequence[AppConfig] | None, model: type[Model]) -> bool:
    return app_configs is None or model._meta.app_config in app_configs


def _is_asked_about(app_configs: Sequence[AppConfig] | None, item: Declared) -> bool:
    """Whether the app of the model, or the declaring app, is being checked."""
    home = apps.app_configs.get(item.invariant.home_on(item.model))
    return _in(app_configs, item.model) or home in (app_configs or ())


def _check_planned(app_configs: Sequence[AppConfig] | None) -> Iterator[checks.CheckMessage]:
    for item in declared():
        if _is_asked_about(app_configs, item):
            for problem in planning.problems_of(item.invariant, item.model):
                # Hints would appear in every command; only “bulksafe ls” shows them.
                if not problem.id.startswith("I"):
                    yield message(problem.id, problem.fact, problem.fix, _Where(item))


def hints(among: Iterable[Declared]) -> list[checks.CheckMessage]:
    """Messages for declarations that plain Django can replace, without silenced ones."""
    hinted: dict[planning.Problem, list[Declared]] = {}
    for item in among:
        for problem in planning.problems_of(item.invariant, item.model):
            if problem.id.startswith("I"):
                hinted.setdefault(problem, []).append(item)
    found = [message(p.id, p.fact, p.fix, _Where(*items)) for p, items in hinted.items()]
    return [one for one in found if not one.is_silenced()]


def _check_rejected(app_configs: Sequence[AppConfig] | None) -> Iterator[checks.CheckMessage]:
    """Report declarations that pgtrigger's registry rejected."""
    for model, trigger in Invariant.rejected:
        if _in(app_configs, model):
            yield from _check_one_rejected(model, trigger)


def _check_one_rejected(model: type[Model], trigger: PgTrigger) -> Iterator[checks.CheckMessage]:
    where: object = model
    if isinstance(trigger, Invariant):
        where = _Where(Declared(model, trigger))
        for problem in planning.problems_of(trigger, model):
            if problem.id.startswith("E"):
                yield message(problem.id, problem.fact, problem.fix, where)
    if trigger.name:
        yield message(
            "E005",
            f"Two triggers on the table “{model._meta.db_table}” have the name “{trigger.name}”.",
            "Give one of them a different name=….",
            where,
        )


def _check_misplaced(app_configs: Sequence[AppConfig] | None) -> Iterator[checks.CheckMessage]:
    for model, found in misplaced:
        if _in(app_configs, model):
            yield message("E010", *_misplaced(found), obj=model)


def _misplaced(found: object) -> tuple[str, str]:
    if isinstance(found, type):
        return (
            f"Meta.triggers has the class {found.__name__}, not an instance of it.",
            f"Write {found.__name__}(…).",
        )
    if isinstance(found, Invariant):
        return (
            f"Meta.triggers is a single {type(found).__name__}, not a list.",
            "Put it into brackets: triggers = […].",
        )
    return (
        f"Meta.triggers has {planning.shown(found)}, which is not a trigger.",
        "List invariants and pgtrigger triggers; constraints belong in Meta.constraints.",
    )


def _check_targets() -> Iterator[checks.CheckMessage]:
    for target, app_label in refused_apps:
        app = next((a for label, a in apps.app_configs.items() if label == app_label), None)
        problem = lost_migration(target, app) if app else unknown_app(app_label)
        where = f"bulksafe.register({planning.shown(target)}, …)"
        yield message(problem.id, problem.fact, problem.fix, _Named(where))
    for target, reason in refused_targets:
        yield message(
            "E008",
            f"bulksafe.register({planning.shown(target)}, …) did not register all: {reason}.",
            "Pass an installed model, or its label “app.Model”, and invariants, from the "
            "invariants.py of your app.",
        )
