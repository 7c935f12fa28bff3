"""The subcommands of ``manage.py bulksafe``, a module each."""

from __future__ import annotations

from argparse import SUPPRESS, RawDescriptionHelpFormatter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from bulksafe.outbox import schema
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction
    from collections.abc import Callable, Iterable, Sequence

    from django.core.management.base import BaseCommand

CLEAN, FINDINGS, ERROR = 0, 1, 2


@dataclass(frozen=True)
class Subcommand:
    """One task of ``manage.py bulksafe``.

    Attributes:
        name: its name on the command line.
        help: a one-line description.
        description: what it does, and its exit status.
        examples: command lines, each with a short explanation.
        arguments: adds its arguments to a parser.
        run: executes it with the command and the options, and returns the exit status.
        every_database: whether it takes all databases unless ``--database`` names one.
    """

    name: str
    help: str
    description: str
    examples: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[..., int]
    every_database: bool = False

    def add_to(self, subparsers: _SubParsersAction[ArgumentParser], command: BaseCommand) -> None:
        parser = subparsers.add_parser(
            self.name,
            help=self.help,
            description=self.description,
            epilog=f"examples:\n{self.examples}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        self.arguments(parser)
        default, shown = (None, "all") if self.every_database else (DEFAULT_DB_ALIAS, "“default”")
        parser.add_argument("--database", default=default, help=f"the database (default: {shown})")
        parser.set_defaults(run=lambda **options: self.run(command, **options))
        _add_common_options(parser)


def _add_common_options(parser: ArgumentParser) -> None:
    """Django's common options, which users write after the subcommand."""
    common = parser.add_argument_group("options of every command")
    common.add_argument("-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS)
    common.add_argument("--settings", default=SUPPRESS)
    common.add_argument("--pythonpath", default=SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        common.add_argument(flag, action="store_true", default=SUPPRESS)


def failed(text: str) -> CommandError:
    """A user error, which ends the command with status 2."""
    return CommandError(text, returncode=ERROR)


def check_database(database: str) -> None:
    """Refuse a database that is not configured or not PostgreSQL."""
    if database not in connections:
        raise failed(f"There is no database {database!r}; known are: {', '.join(connections)}.")
    if connections[database].vendor != "postgresql":
        raise failed(f"The database {database!r} is not PostgreSQL.")


def is_selected(label: str, selections: Sequence[str]) -> bool:
    """Whether an invariant is in one of the selections: an app, a model, or its whole label.

    Args:
        label: ``"shop.Order:net"``.
        selections: what the user wrote; all invariants if it is empty.
    """
    model = label.partition(":")[0].lower()
    names = (label.lower(), model, model.partition(".")[0])
    return not selections or any(selection.lower() in names for selection in selections)


def store_of(database: str) -> Store:
    """The outbox of a database; an error if there is none."""
    check_database(database)
    if not schema.exists(database):
        raise failed(
            f"The database {database!r} has no outbox: "
            f"run “manage.py migrate --database {database}”."
        )
    return Store(database)


def line(cells: Iterable[str], widths: Iterable[int]) -> str:
    """One line of a table."""
    return "".join(cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [line(cells, widths).rstrip() for cells in (header, *rows)]
