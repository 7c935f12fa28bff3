"""``manage.py bulksafe violations``."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from bulksafe.declarations import declared
from bulksafe.declarations.receivers import receivers
from bulksafe.management.subcommands import CLEAN, FINDINGS, Subcommand, failed, store_of, table
from bulksafe.management.subcommands.numbers import positive
from bulksafe.outbox import schema, violations
from bulksafe.planning.problems import did_you_mean

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable

    from django.core.management.base import BaseCommand

    from bulksafe.outbox.violations import Violation

_DESCRIPTION = """\
List the recorded violations of rules with mode="observe", and the writes that receivers with
otherwise="observe" have missed: the latest first.

Each invariant has at most BULKSAFE["MAX_OBSERVED"] records. --delete makes room for others.

exit status: 0 there are none, or they were deleted; 1 there are some; 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe violations                                         the latest 100
  manage.py bulksafe violations --invariant shop.Order:within_credit    of one rule
  manage.py bulksafe violations --json --limit 1000                     with the rows, for a machine
  manage.py bulksafe violations --delete                                delete all
"""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--invariant", metavar="LABEL", help="a rule's label, a receiver's name")
    parser.add_argument("--limit", type=positive, default=100, help="of the list (default: 100)")
    parser.add_argument("--delete", action="store_true", help="delete the records")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON array, or what was deleted"
    )


def _run(
    command: BaseCommand,
    *,
    database: str,
    invariant: str | None,
    limit: int,
    delete: bool,
    json: bool,
    **options: Any,
) -> int:
    store = store_of(database)
    if not schema.has_violations(database):
        raise failed(f"Run “manage.py migrate --database {database}” first.")
    counts = {count.invariant: count.count for count in violations.counts(store)}
    if invariant:
        _check_known(invariant, counts)
    if delete:
        deleted = violations.delete(store, invariant)
        said = (
            jsonlib.dumps({"deleted": deleted})
            if json
            else f"{deleted:,} {'record was' if deleted == 1 else 'records were'} deleted."
        )
        command.stdout.write(said)
        return CLEAN
    found = violations.find(store, invariant, limit)
    if json:
        command.stdout.write(jsonlib.dumps([asdict(one) for one in found], indent=2, default=str))
    elif found:
        _print(command, found)
        total = counts.get(invariant, 0) if invariant else sum(counts.values())
        if total > len(found):
            command.stdout.write(f"… and {total - len(found):,} more: --limit {total}")
    elif invariant:
        command.stdout.write(f"{invariant} has no recorded violation.")
    else:
        command.stdout.write("No violation is recorded.")
    return FINDINGS if found else CLEAN


def _check_known(name: str, recorded: Iterable[str]) -> None:
    """Refuse a name that is neither declared nor recorded: a typo is not a clean result."""
    known = {*recorded, *(item.label for item in declared()), *(one.name for one in receivers)}
    if name not in known:
        hint = did_you_mean(name, known, "“manage.py bulksafe ls” lists all invariants.")
        raise failed(f"There is no invariant or receiver {name!r}. {hint}")


_HEADER = ("at", "invariant", "operation", "table", "key", "user", "query")


def _print(command: BaseCommand, found: list[Violation]) -> None:
    rows = [
        (
            f"{one.at:%Y-%m-%d %H:%M:%S %Z}",
            one.invariant,
            one.operation,
            one.table,
            one.key,
            one.current_user,
            shorten(one.query, 60, placeholder=" …"),
        )
        for one in found
    ]
    for text in table(_HEADER, rows):
        command.stdout.write(text)


VIOLATIONS = Subcommand(
    "violations",
    "list the violations of observed rules",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
