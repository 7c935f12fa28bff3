"""Captures without receivers: ``makemigrations`` asks before it drops one.

Either the receivers were removed, or the module that declares them was not imported. Only the
developer can decide, and a dropped capture loses changes without an error.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.management.base import CommandError
from django.db.migrations.questioner import InteractiveMigrationQuestioner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from django.core.management.base import BaseCommand
    from django.db.migrations.questioner import MigrationQuestioner
    from django.db.models import Model

    from bulksafe import attached, compiler

OPTION = "--drop-capture"


@dataclass(frozen=True)
class Orphan:
    """A capture in the migrations whose table has no critical receiver in the code.

    Attributes:
        key: the key of its model in the code.
        homes: the apps whose migrations contain it.
        trigger: the stored trigger.
        before: the key of the model in the migrations.
    """

    key: attached.Key
    homes: frozenset[str]
    trigger: compiler.Trigger
    before: type[Model] | None

    @property
    def label(self) -> str:
        return str(apps.get_model(*self.key)._meta.label)


@dataclass(frozen=True)
class _Request:
    """A running ``makemigrations``, and its ``--drop-capture`` models."""

    command: BaseCommand
    labels: Sequence[str]


_request: ContextVar[_Request | None] = ContextVar("bulksafe.makemigrations", default=None)


@contextmanager
def requested(command: BaseCommand, labels: Iterable[str]) -> Iterator[None]:
    """Set the request during ``makemigrations``; without one (``migrate``) captures are kept."""
    token = _request.set(_Request(command, tuple(labels)))
    try:
        yield
    finally:
        _request.reset(token)


def has_table(key: attached.Key) -> bool:
    """Whether the code has the model, with a table that the project migrates."""
    try:
        meta = apps.get_model(*key)._meta
    except LookupError:
        return False
    return bool(meta.managed and not meta.swapped)


def kept(orphans: Iterable[Orphan], questioner: MigrationQuestioner) -> list[Orphan]:
    """The captures to keep.

    Args:
        orphans: captures without receivers in the code, on models with a table.
        questioner: Django's.

    Raises:
        CommandError: ``--drop-capture`` names a model without such a capture, or a capture cannot
            be kept.
    """
    found = sorted(orphans, key=lambda orphan: orphan.label)
    request = _request.get()
    if request is None:
        return found
    apps_named = questioner.specified_apps
    named = [one for one in found if not apps_named or one.homes & set(apps_named)]
    _refuse_others(request.labels, named)
    left = [one for one in found if one not in named or not _drops(request, questioner, one)]
    for orphan in left:
        _refuse_unfit(orphan)
    return left


def _refuse_others(labels: Sequence[str], orphans: Sequence[Orphan]) -> None:
    known = {orphan.label.lower() for orphan in orphans}
    for label in labels:
        if label.lower() not in known:
            listed = ", ".join(orphan.label for orphan in orphans) or "none"
            raise CommandError(
                f"{OPTION} {label}: there is no capture without receivers on this model. Models "
                f"that have one: {listed}."
            )


def _drops(request: _Request, questioner: MigrationQuestioner, orphan: Orphan) -> bool:
    if orphan.label.lower() in [label.lower() for label in request.labels]:
        return True
    if isinstance(questioner, InteractiveMigrationQuestioner) and not questioner.dry_run:
        try:
            return _asks(questioner, orphan)
        except EOFError:
            # There is no terminal.
            questioner.prompt_output.write("")
    text = (
        f"Keeping the capture on {orphan.label}: its table has no critical receiver in this code, "
        "so either they were removed, or their module was not imported.\n"
        "  Import the module in AppConfig.ready(), or list it in BULKSAFE['DISCOVER'].\n"
        "  If the receivers were removed, drop the capture: "
        f"manage.py makemigrations {OPTION} {orphan.label}"
    )
    request.command.stderr.write(text, request.command.style.WARNING)
    return False


def _asks(questioner: Any, orphan: Orphan) -> bool:
    question = (
        f"The table of {orphan.label} has a capture, and no critical receiver in this code. Either "
        "they were removed, or their module was not imported (import it in AppConfig.ready())."
    )
    choices = [
        "Keep the capture: continue to capture changes of the table",
        "Drop the capture: the receivers were removed",
    ]
    return bool(questioner._choice_input(question, choices) == 2)


def _refuse_unfit(orphan: Orphan) -> None:
    """Refuse to keep a capture whose conditions read removed columns."""
    if orphan.before is None:
        return
    present = {field.column for field in apps.get_model(*orphan.key)._meta.concrete_fields}
    gone = [
        field.column
        for field in orphan.before._meta.concrete_fields
        if field.column not in present and _reads(orphan.trigger.functions, f'"{field.column}"')
    ]
    if gone:
        raise CommandError(
            f"The capture on {orphan.label} cannot be kept, since it reads the column "
            f"“{gone[0]}”, which is removed or renamed. Import the module of its receivers in "
            "AppConfig.ready(); or drop the capture, if the receivers were removed: "
            f"manage.py makemigrations {OPTION} {orphan.label}"
        )


def _reads(described: object, column: str) -> bool:
    """Whether any SQL in the trigger's arguments contains the quoted column."""
    if isinstance(described, str):
        return column in described
    if isinstance(described, dict):
        described = list(described.values())
    return isinstance(described, list | tuple) and any(_reads(one, column) for one in described)
