"""``manage.py bulksafe ls``."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bulksafe import checks, inspection
from bulksafe.declarations import declared
from bulksafe.declarations.modes import ENFORCE
from bulksafe.management.subcommands import (
    CLEAN,
    FINDINGS,
    Subcommand,
    check_database,
    failed,
    is_selected,
    line,
)
from bulksafe.outbox import schema
from bulksafe.outbox.store import Store
from bulksafe.outbox.violations import counts

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Collection, Mapping, Sequence

    from django.core.management.base import BaseCommand

_DESCRIPTION = """\
List every invariant: its table, the operations that it guards, its firing order, and its
state in the database.

  installed  the database enforces what the code declares
  outdated   the database enforces a different version of it: run makemigrations and migrate
  missing    the database does not enforce it: run makemigrations and migrate
  disabled   its trigger is disabled: run pgtrigger enable with its label
  switched off  a capture that bulksafe switch-on switches on; no fault while BULKSAFE["ROLLOUT"]
                lists the model

If a rule is not enforced, it also shows the modes, and how many violations are recorded.

Hints name rules that Django's own constraints or generated fields could hold;
SILENCED_SYSTEM_CHECKS hides them.

exit status: 0 all installed, 1 the database differs from the code, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe ls                          the default database
  manage.py bulksafe ls shop shop.Order          one app, one model
  manage.py bulksafe ls --database replica       another database
  manage.py bulksafe ls --json | jq -r '.[] | select(.state != "installed") | .label'
"""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("labels", nargs="*", metavar="app[.Model[:name]]", help="only these")
    parser.add_argument("--json", action="store_true", help="print a JSON array")


def _run(
    command: BaseCommand, labels: Sequence[str], database: str, json: bool, **options: Any
) -> int:
    check_database(database)
    found = inspection.statuses(database)
    for label in labels:
        if not any(is_selected(status.label, [label]) for status in found):
            raise failed(f"No invariant matches {label!r}.")
    found = [status for status in found if is_selected(status.label, labels)]
    violations = _violations(database)
    if json:
        listed = [asdict(s) | {"violations": violations.get(s.label, 0)} for s in found]
        command.stdout.write(jsonlib.dumps(listed, indent=2))
    else:
        _print_table(command, found, violations, database)
        _print_hints(command, {status.label for status in found})
    return FINDINGS if any(s.is_fault for s in found) else CLEAN


def _violations(database: str) -> dict[str, int]:
    """The number of recorded violations of each rule."""
    if not schema.has_violations(database):
        return {}
    return {count.invariant: count.count for count in counts(Store(database))}


def _print_table(
    command: BaseCommand,
    found: Sequence[inspection.Status],
    violations: Mapping[str, int],
    database: str,
) -> None:
    if not found:
        command.stdout.write(f"No invariants are declared on models of the database {database!r}.")
        return
    is_enforced = all(s.mode == ENFORCE and s.label not in violations for s in found)
    modes = () if is_enforced else ("mode", "violations")
    header = ("invariant", "kind", "operations", "fires", *modes, "state")
    rows = [
        (
            *(s.label.partition(":")[2], s.kind, s.operations, f"{s.order}. {s.timing}"),
            *((s.mode, f"{violations.get(s.label, 0):,}") if modes else ()),
            s.state,
        )
        for s in found
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    heading_before = None
    command.stdout.write("  " + line(header, widths))
    for status, row in zip(found, rows, strict=True):
        heading = f"{status.label.partition(':')[0]}  (table {status.table})"
        if heading != heading_before:
            command.stdout.write(command.style.MIGRATE_HEADING(heading))
            heading_before = heading
        style = command.style.ERROR if status.is_fault else command.style.SUCCESS
        command.stdout.write("  " + line(row[:-1], widths) + style(row[-1]))
    wrong = [s for s in found if s.is_fault]
    command.stdout.write(
        f"\n{len(found)} {'invariant' if len(found) == 1 else 'invariants'}, {len(wrong)} "
        f"{'differs' if len(wrong) == 1 else 'differ'} in the database {database!r}."
    )
    if wrong:
        command.stdout.write(
            "Run makemigrations and migrate; for a disabled one “manage.py pgtrigger enable LABEL”."
        )
    if any(s.state == inspection.SWITCHED_OFF for s in found):
        command.stdout.write(
            "Captures are switched off: their receivers run like plain signal receivers, if "
            'BULKSAFE["ROLLOUT"] lists their models. “bulksafe switch-on” switches them on.'
        )


def _print_hints(command: BaseCommand, labels: Collection[str]) -> None:
    for hint in checks.hints(item for item in declared() if item.label in labels):
        command.stdout.write(f"\n{hint.id}: {hint.msg} ({hint.obj})\n  {hint.hint}")


LS = Subcommand(
    "ls",
    "list every invariant and its state in the database",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
