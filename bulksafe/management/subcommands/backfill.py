"""``manage.py bulksafe backfill``."""

from __future__ import annotations

import json as jsonlib
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bulksafe.adoption.backfilling import Backfill, Options, Remaining, Report
from bulksafe.adoption.errors import Unusable
from bulksafe.declarations import Compute
from bulksafe.management.subcommands import CLEAN, ERROR, FINDINGS, Subcommand, failed
from bulksafe.management.subcommands.ending import ended_by_sigterm
from bulksafe.management.subcommands.numbers import pause, positive
from bulksafe.management.subcommands.progress import ProgressLine, progress_text
from bulksafe.management.subcommands.selecting import TableRules, selected

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

_DESCRIPTION = """\
Repair computed columns: write each row whose column differs from its Compute, so that the trigger
sets the value. Rows that are right are not written.

Each batch is a short transaction. It skips rows that are in use and comes back to them at the end,
and it gets smaller where rows are slow to write, so that writers hardly wait. Rows that another
rule, a constraint or a receiver refuses are listed, and the others go on.

A repair is a change like any other: other triggers fire, receivers run, events are captured.

It may be ended at any time: what is committed stays, and a further run finds what is left. --after
makes it go on where it was, and does not read the table from the start.

exit status: 0 every value is right, 1 some rows are still wrong, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe backfill shop.Order:net                   one computed column
  manage.py bulksafe backfill shop.Order --dry-run             count the rows of a table
  manage.py bulksafe backfill shop.Order --after 120000        go on after a key
  manage.py bulksafe backfill --limit 10000 --sleep 0.1        a part, with pauses
  manage.py bulksafe backfill --json | jq '.invariants[].remaining'
"""

#: Seconds between two lines that say where it is, if the output is not a terminal.
_EVERY = 10.0

#: Rows that are listed as text; ``--json`` lists all.
_LISTED = 100


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("labels", nargs="*", metavar="app[.Model[:name]]", help="only these")
    parser.add_argument(
        "--batch",
        type=positive,
        default=Options.batch,
        metavar="ROWS",
        help=f"the most rows that a transaction writes (default: {Options.batch:,})",
    )
    parser.add_argument(
        "--sleep", type=pause, default=0.0, metavar="S", help="seconds between two batches"
    )
    parser.add_argument("--limit", type=positive, metavar="ROWS", help="write at most so many rows")
    parser.add_argument(
        "--after",
        metavar="KEY",
        help="start after this primary key (a JSON array for several columns)",
    )
    parser.add_argument("--dry-run", action="store_true", help="count the rows, and write nothing")
    parser.add_argument(
        "--without-triggers",
        action="store_true",
        help="write the values also where no trigger is installed that keeps them",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def _run(
    command: BaseCommand,
    *,
    labels: Sequence[str],
    database: str,
    json: bool,
    verbosity: int = 1,
    **options: Any,
) -> int:
    names = ("batch", "sleep", "limit", "after", "dry_run", "without_triggers")
    how = Options(**{name: options[name] for name in names})
    tables = _computes(command, labels, database)
    if how.after is not None and len(tables) != 1:
        raise failed("--after is a key of one table: name the model, like shop.Order.")
    said = _Said(command, how, verbosity, is_json=json)
    entries: list[dict[str, Any]] = []
    try:
        return _repair(command, tables, how, said, entries)
    finally:
        # Also after an error: it says what has been repaired until then.
        if json:
            text = jsonlib.dumps({"invariants": entries}, indent=2, ensure_ascii=False)
            command.stdout.write(text)


def _repair(
    command: BaseCommand,
    tables: Sequence[TableRules],
    how: Options,
    said: _Said,
    entries: list[dict[str, Any]],
) -> int:
    """Repair the tables, one after the other. Returns the exit status.

    Args:
        entries: gets the result of each table.
    """
    code = CLEAN
    for rules in tables:
        try:
            report = said.follow(Backfill(rules.items, rules.database, how))
        except Unusable as error:
            command.stderr.write(str(error))
            code = ERROR
            entries += [_failed_json(item.label, rules.database, error) for item in rules.items]
            continue
        entries += _as_json(report, how)
        is_wrong = bool(report.remaining or (how.dry_run and any(report.repaired.values())))
        code = max(code, FINDINGS if is_wrong or not report.is_complete else CLEAN)
        if how.limit is not None:
            rest = how.limit - report.written
            if rest <= 0:
                break
            how = replace(how, limit=rest)
    return code


def _computes(command: BaseCommand, labels: Sequence[str], database: str) -> list[TableRules]:
    """The computed columns that match ``labels``, by table."""
    found = []
    named = {label.lower() for label in labels}
    for rules in selected(labels, database):
        for item in rules.items:
            kind = type(item.invariant).__name__
            if not isinstance(item.invariant, Compute) and item.label.lower() in named:
                raise failed(
                    f"{item.label} is a {kind}, and backfill repairs a Compute only: a {kind} does "
                    f"not say what is right. “manage.py bulksafe verify {item.label}” lists the "
                    "rows."
                )
        items = [item for item in rules.items if isinstance(item.invariant, Compute)]
        if items:
            found.append(TableRules(rules.database, items))
    if not found and not labels:
        command.stderr.write(
            f"No Compute is declared for the database {database!r}: nothing is to be done."
        )
    if labels and not found:
        raise failed(f"There is no Compute in {', '.join(labels)} in the database {database!r}.")
    return found


class _Said:
    """What the user sees while a table is repaired, and afterwards."""

    def __init__(
        self, command: BaseCommand, options: Options, verbosity: int, *, is_json: bool
    ) -> None:
        self.command = command
        self.options = options
        self.verbosity = verbosity
        self.is_json = is_json
        self.line = ProgressLine(command, is_wanted=not is_json and verbosity > 0)
        self.said = time.monotonic()

    def follow(self, backfill: Backfill) -> Report:
        """Run a backfill, and show how far it is."""
        report = backfill.report
        self.line.restart()
        self.said = started = time.monotonic()
        try:
            with ended_by_sigterm():
                for _ in backfill.run():
                    self._progress(report, started)
        except BaseException:
            self.line.clear()
            self._position(report, "Interrupted. ")
            raise
        self.line.clear()
        if not self.is_json:
            self._summary(report, time.monotonic() - started)
        return report

    def _progress(self, report: Report, started: float) -> None:
        self.line.show(report.table, report.rows, report.estimate, f", {report.written:,} written")
        is_due = time.monotonic() - self.said >= _EVERY or self.verbosity > 1
        if not self.line.is_shown and self.verbosity and is_due:
            self.said = time.monotonic()
            shown = progress_text(report.table, report.rows, report.estimate, self.said - started)
            self._position(report, f"{shown}, {report.written:,} written. ")

    def _position(self, report: Report, text: str) -> None:
        """Say how to resume. To stderr: the output may be JSON."""
        if report.position is not None:
            words = ["manage.py", "bulksafe", "backfill", *report.repaired]
            command = shlex.join([*words, "--after", report.position])
            text += f"To resume, run this with the same options as before: {command}"
        if text:
            self.command.stderr.write(text.rstrip(), style_func=str)
            self.command.stderr.flush()

    def _summary(self, report: Report, seconds: float) -> None:
        write, style = self.command.stdout.write, self.command.style
        verb = "wrong" if self.options.dry_run else "repaired"
        for label, count in report.repaired.items():
            write(f"{label}: {count:,} {'row' if count == 1 else 'rows'} {verb}")
        rate = f", {report.written / seconds:,.0f} a second" if report.written else ""
        write(f"  {report.rows:,} rows looked at, {report.written:,} written{rate}")
        if report.remaining:
            count = len(report.remaining)
            write(style.ERROR(f"  {count:,} {'row is' if count == 1 else 'rows are'} still wrong:"))
            for row in list(report.remaining.values())[:_LISTED]:
                write(f"    {_text(row)}")
            if len(report.remaining) > _LISTED:
                write(f"    … --json lists all {count:,}")
        if not report.is_complete:
            write(style.WARNING("  The limit is reached; there may be more."))
            self._position(report, "")


def _text(row: Remaining) -> str:
    names = ", ".join(label.rpartition(":")[2] for label in row.invariants)
    return f"{jsonlib.dumps(row.key, ensure_ascii=False)} ({names}): {row.message}"


def _as_json(report: Report, options: Options) -> list[dict[str, Any]]:
    return [
        {
            "invariant": label,
            "database": report.database,
            "wrong" if options.dry_run else "repaired": count,
            "remaining": [
                {"key": row.key, "message": row.message}
                for row in report.remaining.values()
                if label in row.invariants
            ],
            "rows": report.rows,
            "complete": report.is_complete,
            "after": report.position,
            "error": None,
        }
        for label, count in report.repaired.items()
    ]


def _failed_json(label: str, database: str, error: Unusable) -> dict[str, Any]:
    return {"invariant": label, "database": database, "error": str(error)}


BACKFILL = Subcommand(
    "backfill",
    "repair computed columns",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
