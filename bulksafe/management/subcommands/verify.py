"""``manage.py bulksafe verify``."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Any

from bulksafe.adoption.verifying import Result, verify
from bulksafe.management.subcommands import CLEAN, ERROR, FINDINGS, Subcommand
from bulksafe.management.subcommands.numbers import positive
from bulksafe.management.subcommands.progress import ProgressLine
from bulksafe.management.subcommands.selecting import selected

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from django.core.management.base import BaseCommand

_DESCRIPTION = """\
Find the rows that break an invariant now. Triggers guard what is written from now on; rows that
were there before, or were written while a trigger was disabled, are as they were. Run it before
the migration too: it needs no trigger, only the table.

Each invariant is shown with the number of rows, the first keys, and a query for all of them. Rules
about changes (Immutable, rules with old__, rules for deletes) say nothing about a stored row.

It reads each table once, in key order, in short read-only transactions that no writer waits for.
Writes that happen meanwhile may be seen or not.

exit status: 0 no row breaks a rule, 1 there are such rows, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe verify                          every invariant, in all databases
  manage.py bulksafe verify shop.Order               one model
  manage.py bulksafe verify shop.Order:net           one invariant
  manage.py bulksafe verify --database replica       read one database, for example a replica
  manage.py bulksafe verify --json | jq '.invariants[] | select(.violations > 0)'
"""

_FIRST, _BATCH = 10, 10_000


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("labels", nargs="*", metavar="app[.Model[:name]]", help="only these")
    parser.add_argument(
        "--first",
        type=positive,
        default=_FIRST,
        metavar="N",
        help=f"list the first N keys of each invariant (default: {_FIRST})",
    )
    parser.add_argument(
        "--batch",
        type=positive,
        default=_BATCH,
        metavar="ROWS",
        help=f"rows that a transaction reads (default: {_BATCH:,})",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def _run(
    command: BaseCommand,
    *,
    labels: Sequence[str],
    database: str | None,
    first: int,
    batch: int,
    json: bool,
    **options: Any,
) -> int:
    line = ProgressLine(command, is_wanted=not json)
    results: list[Result] = []
    for rules in selected(labels, database):
        line.restart()
        found = verify(rules.items, rules.database, batch=batch, first=first, progress=line.show)
        line.clear()
        results += found
        if not json:
            for result in found:
                _print(command, result, with_database=database is None)
    if json:
        listed = [_as_json(result) for result in results]
        command.stdout.write(jsonlib.dumps({"invariants": listed}, indent=2, ensure_ascii=False))
    else:
        _print_summary(command, results)
    if any(result.error for result in results):
        return ERROR
    return FINDINGS if any(result.is_finding for result in results) else CLEAN


def _print(command: BaseCommand, result: Result, *, with_database: bool) -> None:
    write, style = command.stdout.write, command.style
    name = result.invariant
    if with_database and result.database != "default":
        name += f" in the database “{result.database}”"
    if result.error:
        write(style.ERROR(f"{name}: not verified"))
        write(f"  {result.error}")
    elif not result.verifiable:
        write(f"{name}: nothing to verify. {result.reason}")
    elif not result.is_finding:
        write(style.SUCCESS(f"{name}: no violation") + f" in {result.rows:,} rows")
    if result.is_finding:
        _print_finding(command, result, name)


def _print_finding(command: BaseCommand, result: Result, name: str) -> None:
    write, style = command.stdout.write, command.style
    if result.violations:
        rows = "row breaks" if result.violations == 1 else "rows break"
        write(style.ERROR(f"{name}: {result.violations:,} {rows} it") + f" of {result.rows:,}")
        keys = ", ".join(jsonlib.dumps(key, ensure_ascii=False) for key in result.first)
        write(f"  first keys: {keys}")
        if result.meaning:
            write(f"  {result.meaning}")
    if result.failures:
        count = len(result.failures)
        rows = "row" if count == 1 else "rows"
        write(style.ERROR(f"{name}: its expression fails for {count:,} {rows}"))
        for key, message in result.failures[: max(len(result.first), _FIRST)]:
            write(f"  {jsonlib.dumps(key, ensure_ascii=False)}: {message}")
    if result.sql:
        write(f"  psql:\n    {result.sql}")
    if result.orm:
        write("  manage.py shell:\n    " + result.orm.replace("\n", "\n    "))


def _print_summary(command: BaseCommand, results: Sequence[Result]) -> None:
    if not results:
        command.stdout.write("No invariants are declared.")
        return
    broken = sum(result.is_finding for result in results)
    changes = sum(not result.verifiable for result in results)
    errors = sum(result.error is not None for result in results)
    verified = len(results) - changes - errors
    text = f"\nInvariants verified: {verified}, with rows that break them: {broken}"
    if changes:
        text += f", with nothing to verify: {changes}"
    command.stdout.write(f"{text}.")
    if errors:
        command.stdout.write(
            command.style.ERROR(f"Invariants that could not be verified: {errors}")
        )


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "invariant": result.invariant,
        "kind": result.kind,
        "database": result.database,
        "verifiable": result.verifiable,
        "reason": result.reason,
        "rows": result.rows,
        "violations": None if result.error else result.violations,
        "first": result.first,
        "failures": [{"key": key, "message": message} for key, message in result.failures],
        "meaning": result.meaning,
        "sql": result.sql,
        "orm": result.orm,
        "error": result.error,
    }


VERIFY = Subcommand(
    "verify",
    "find the rows that break an invariant",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
    every_database=True,
)
