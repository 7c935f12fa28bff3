"""``manage.py bulksafe``: one command, a subcommand for each task."""

from __future__ import annotations

import json
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from bulksafe import inspection
from bulksafe.exceptions import InvalidDeclaration

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Sequence

CLEAN, FINDINGS, ERROR = 0, 1, 2

_LS_HELP = """\
List every invariant: its table, the operations that it guards, the order in which it fires, and its
state in the database.

  installed  the database enforces what the code declares
  outdated   the database enforces another version of it: run makemigrations and migrate
  missing    the database does not enforce it: run makemigrations and migrate
  disabled   somebody switched its trigger off: ALTER TABLE … ENABLE TRIGGER …

exit status: 0 all installed, 1 the database differs from the code, 2 an error
"""

_LS_EXAMPLES = """\
examples:
  manage.py bulksafe ls                          the default database
  manage.py bulksafe ls shop shop.Order          one app, one model
  manage.py bulksafe ls --database replica       another database
  manage.py bulksafe ls --json | jq -r '.[] | select(.state != "installed") | .label'
"""


class Command(BaseCommand):
    help = "Look at the invariants of this project and at what the database has of them."
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        epilog = "exit status: 0 clean, 1 findings, 2 an error"
        return super().create_parser(prog_name, subcommand, epilog=epilog, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        subparsers = parser.add_subparsers(title="subcommands", dest="subcommand", required=True)
        ls = subparsers.add_parser(
            "ls",
            help="list every invariant and its state in the database",
            description=_LS_HELP,
            epilog=_LS_EXAMPLES,
            formatter_class=RawDescriptionHelpFormatter,
        )
        ls.add_argument("labels", nargs="*", metavar="app[.Model[:name]]", help="only these")
        ls.add_argument("--database", default=DEFAULT_DB_ALIAS, help="the database to look at")
        ls.add_argument("--json", action="store_true", help="print a JSON array")
        ls.set_defaults(run=self.ls)
        _add_common_options(ls)

    def handle(self, *args: Any, run: Callable[..., int], **options: Any) -> None:
        try:
            code = run(**options)
        except InvalidDeclaration as error:
            raise CommandError(str(error), returncode=ERROR) from error
        except DatabaseError as error:
            raise CommandError(
                f"The database cannot be asked: {error}", returncode=ERROR
            ) from error
        if code:
            raise SystemExit(code)

    def ls(self, labels: Sequence[str], database: str, json: bool, **options: Any) -> int:
        if database not in connections:
            known = ", ".join(connections)
            raise CommandError(
                f"There is no database {database!r}; known are: {known}.", returncode=ERROR
            )
        if connections[database].vendor != "postgresql":
            raise CommandError(f"The database {database!r} is not PostgreSQL.", returncode=ERROR)
        found = inspection.statuses(database)
        for label in labels:
            if not any(_matches(status, label) for status in found):
                raise CommandError(f"No invariant matches {label!r}.", returncode=ERROR)
        if labels:
            found = [s for s in found if any(_matches(s, label) for label in labels)]
        self._print_json(found) if json else self._print_table(found, database)
        return CLEAN if all(s.state == inspection.INSTALLED for s in found) else FINDINGS

    def _print_json(self, found: Sequence[inspection.Status]) -> None:
        self.stdout.write(json.dumps([asdict(status) for status in found], indent=2))

    def _print_table(self, found: Sequence[inspection.Status], database: str) -> None:
        if not found:
            self.stdout.write(f"No invariants are declared on models of the database {database!r}.")
            return
        header = ("invariant", "kind", "operations", "fires", "state")
        rows = [
            (s.label.partition(":")[2], s.kind, s.operations, f"{s.order}. {s.timing}", s.state)
            for s in found
        ]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        table = None
        self.stdout.write("  " + _line(header, widths))
        for status, row in zip(found, rows, strict=True):
            heading = f"{status.label.partition(':')[0]}  (table {status.table})"
            if heading != table:
                self.stdout.write(self.style.MIGRATE_HEADING(heading))
                table = heading
            style = self.style.SUCCESS if status.state == inspection.INSTALLED else self.style.ERROR
            self.stdout.write("  " + _line(row[:-1], widths) + style(row[-1]))
        wrong = [s for s in found if s.state != inspection.INSTALLED]
        self.stdout.write(
            f"\n{len(found)} invariants, {len(wrong)} differ in the database {database!r}."
        )
        if wrong:
            self.stdout.write(
                "Run makemigrations and migrate; for disabled ones, enable the trigger."
            )


def _add_common_options(subparser: ArgumentParser) -> None:
    """Django's options for every command, which users write behind the subcommand."""
    common = subparser.add_argument_group("options of every command")
    common.add_argument("-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS)
    common.add_argument("--settings", default=SUPPRESS)
    common.add_argument("--pythonpath", default=SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        common.add_argument(flag, action="store_true", default=SUPPRESS)


def _matches(status: inspection.Status, label: str) -> bool:
    model = status.label.partition(":")[0]
    return label.lower() in (
        status.label.lower(),
        model.lower(),
        model.partition(".")[0].lower(),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=False))
