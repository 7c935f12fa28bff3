"""Patches of ``makemigrations``, ``migrate`` and pgtrigger's commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core import management
from django.core.management.commands import makemigrations, migrate
from django.db.migrations import autodetector
from pgtrigger import runtime

from bulksafe.patches.patching import Patch, substitute
from bulksafe.planning import autodetection, dropping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.core.management.base import BaseCommand, CommandParser
    from psycopg.abc import Params, Query

    from bulksafe.patches.patching import Original


def _with_invariants(_original: object) -> type:
    """Mix our class into the autodetector that pgtrigger has installed; cached."""
    detector: type = makemigrations.Command.autodetector
    if issubclass(detector, autodetection.InvariantsMixin):
        return detector
    return type("MigrationAutodetector", (autodetection.InvariantsMixin, detector), {})


def _load_command_class(original: Original[BaseCommand], app_name: str, name: str) -> BaseCommand:
    command = original(app_name, name)
    kind: Any = type(command)
    if name in {"makemigrations", "migrate"} and (
        getattr(kind, "autodetector", None) is autodetector.MigrationAutodetector
    ):
        kind.autodetector = makemigrations.Command.autodetector
    return command


def _add_arguments(
    original: Original[None], self: makemigrations.Command, parser: CommandParser
) -> None:
    original(self, parser)
    parser.add_argument(
        dropping.OPTION,
        action="append",
        default=[],
        metavar="MODEL",
        help="Drop the capture of this model, whose critical receivers were removed "
        "(bulksafe). May be repeated.",
    )


def _make_migrations(
    original: Original[None],
    self: makemigrations.Command,
    *app_labels: str,
    drop_capture: Sequence[str] = (),
    **options: Any,
) -> None:
    with dropping.requested(self, drop_capture):
        original(self, *app_labels, **options)


def _inject(
    original: Original[object],
    execute: Callable[..., object],
    sql: Query,
    params: Params | None,
    *others: object,
) -> object:
    def run(text: str, given: Params | None, *rest: object) -> object:
        if params is None and given is not None:
            setting, _, statement = text.partition("; ")
            text = f"{setting}; {statement.replace('%', '%%')}"
        return execute(text, given, *rest)

    return original(run, sql, params, *others)


LATE = (
    *(
        Patch(
            owner,
            name,
            _with_invariants,
            "The autodetector plans the declared triggers. pgtrigger reads it from the modules, "
            "Django from "
            "the commands.",
            substitute,
        )
        for owner, name in (
            (makemigrations.Command, "autodetector"),
            (migrate.Command, "autodetector"),
            (makemigrations, "MigrationAutodetector"),
            (migrate, "MigrationAutodetector"),
        )
    ),
    Patch(
        management,
        "load_command_class",
        _load_command_class,
        "Commands of other packages, such as django-tenants' migrate, use Django's autodetector: "
        "they get the same one. Django's check commands.E001 demands it.",
    ),
    Patch(
        makemigrations.Command,
        "add_arguments",
        _add_arguments,
        "makemigrations has the option --drop-capture.",
    ),
    Patch(
        makemigrations.Command,
        "handle",
        _make_migrations,
        "The autodetector asks about captures, but has no reference to the command that runs it.",
    ),
    *(
        Patch(
            runtime,
            name,
            _inject,
            "pgtrigger puts a parameter before a statement. One without parameters may have a “%”, "
            "as the triggers of captures do: pgtrigger install --schema would fail.",
        )
        for name in ("_inject_schema", "_inject_pgtrigger_ignore")
    ),
)
