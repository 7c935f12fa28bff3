"""Repairs the computed columns of a table that is in use."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from bulksafe.adoption import computed, keys
from bulksafe.adoption.errors import Unusable
from bulksafe.adoption.keys import Span
from bulksafe.adoption.looking import Found, Look
from bulksafe.adoption.repairing import LOCKED, UNCHANGED, Outcome, Pace, Repair
from bulksafe.adoption.tables import table_of

if TYPE_CHECKING:
    from bulksafe.declarations import Declared

#: Rows that are looked at with one query.
_SPAN = 10_000

#: Seconds to try locked rows again without success, before they are left as they are.
PATIENCE = 10.0

#: The pause between two attempts in seconds, at first and at most.
_PAUSES = (0.05, 1.0)

#: Rows whose expression fails, after which a table is given up: each of them costs queries.
_MOST_FAILURES = 1_000


@dataclass(frozen=True)
class Options:
    """How to backfill.

    Attributes:
        batch: the maximum number of rows of a transaction.
        sleep: seconds between two transactions.
        limit: the maximum number of rows to write; None for all.
        after: the key to start after, as the user wrote it; None for the whole table.
        dry_run: count the wrong rows, and write nothing.
        without_triggers: write the values although no trigger keeps them.
    """

    batch: int = 1_000
    sleep: float = 0.0
    limit: int | None = None
    after: str | None = None
    dry_run: bool = False
    without_triggers: bool = False


@dataclass(frozen=True)
class Remaining:
    """A row that is still wrong.

    Attributes:
        key: its primary key; a list if it is composite.
        invariants: the labels of the computed columns.
        message: why it is.
    """

    key: Any
    invariants: list[str]
    message: str


@dataclass
class Report:
    """The state of a backfill of one table.

    Attributes:
        database: the alias.
        table: the table's name.
        repaired: the number of repaired rows by invariant; with a dry run, of wrong rows.
        remaining: rows that are still wrong, by key.
        rows: the number of rows that were looked at.
        estimate: the number of rows of the table, if it is known.
        written: the number of rows that were written or refused.
        position: the rows up to this key are done, apart from ``remaining``; None at the start.
        is_complete: whether it has come to the end of the table.
    """

    database: str
    table: str
    repaired: Counter[str]
    remaining: dict[keys.Key, Remaining] = field(default_factory=dict)
    rows: int = 0
    estimate: int | None = None
    written: int = 0
    position: str | None = None
    is_complete: bool = False


class Backfill:
    """Repairs computed columns of one table.

    Args:
        items: invariants of one table, all of them ``Compute``.
        using: the database.
        options: how to do it.

    Raises:
        Unusable: the table or an expression cannot be used, or a trigger is not installed.
    """

    def __init__(self, items: Sequence[Declared], using: str, options: Options) -> None:
        model = items[0].model._meta.concrete_model or items[0].model
        self.table = table_of(model, using)
        self.options = options
        self.after = None if options.after is None else keys.parsed(self.table, options.after)
        ordered = sorted(items, key=computed.depth)
        self.labels = [item.label for item in ordered]
        look = Look(self.table, [computed.condition(item, self.table) for item in ordered])
        guarded = [] if options.without_triggers else items
        self._refuse_unguarded = partial(computed.refuse_unguarded, guarded, using)
        self._refuse_unguarded()
        steps = computed.steps(ordered, with_triggers=not options.without_triggers)
        self.repair = Repair(model, look, steps, Pace(options.batch), computed.observed(ordered))
        self.report = Report(
            database=using,
            table=model._meta.db_table,
            repaired=Counter(dict.fromkeys(self.labels, 0)),
            estimate=self.table.estimate,
            position=options.after,
        )

    def run(self) -> Iterator[Report]:
        """Do it; yields the report after each transaction."""
        locked: list[Span] = []
        for span in keys.spans(self.table, _SPAN, self.after):
            for outcome in self._repair(span):
                if outcome.locked and locked[-1:] != [span]:
                    locked.append(span)
                if not locked:
                    self._move_to(outcome.until)
                yield self.report
            if self._is_at_limit:
                return
            self.report.rows += _SPAN if span.until else len(keys.keys_in(self.table, span))
            if not locked:
                self._move_to(span.until)
            yield self.report
        yield from self._come_back(locked)
        self.report.is_complete = not self._is_at_limit

    def _come_back(self, locked: list[Span]) -> Iterator[Report]:
        """Try the rows again that were in use."""
        pause, longest = _PAUSES
        waiting_since = time.monotonic()
        while locked and not self._is_at_limit and time.monotonic() - waiting_since < PATIENCE:
            time.sleep(pause)
            pause = min(2 * pause, longest)
            spans, locked = locked, []
            for span in spans:
                for outcome in self._repair(span):
                    if outcome.repaired:
                        waiting_since = time.monotonic()
                    if outcome.locked and locked[-1:] != [span]:
                        locked.append(span)
                    yield self.report
        for span in locked:
            for row in self._wrong(span):
                self._note_remaining(row, LOCKED)

    def _repair(self, span: Span) -> Iterator[Outcome]:
        refused_before = len(self.report.remaining)
        wrong = self._wrong(span)
        # The rows are not in the order of their keys if an expression fails for one of them.
        is_ordered = len(self.report.remaining) == refused_before
        if self.options.dry_run:
            self._count(wrong)
            return
        if self.options.limit is not None:
            wrong = wrong[: self.options.limit - self.report.written]
        for outcome in self.repair.repair(wrong):
            self._count(outcome.repaired)
            for row, message in outcome.refused:
                self._note_remaining(row, message)
            if any(message == UNCHANGED for _, message in outcome.refused):
                # A migration may have removed the trigger meanwhile.
                self._refuse_unguarded()
            self.report.written += len(outcome.repaired) + len(outcome.refused)
            if not is_ordered:
                outcome.until = None
            yield outcome
            time.sleep(self.options.sleep)

    def _wrong(self, span: Span) -> list[Found]:
        """The rows to repair; notes those whose value cannot be computed."""
        found = []
        for row in self.repair.look.at(span):
            if row.failure is not None:
                self._note_remaining(row, row.failure)
                if len(self.report.remaining) >= _MOST_FAILURES:
                    raise Unusable(
                        f"{self.labels[min(row.conditions)]}: its expression fails for "
                        f"{_MOST_FAILURES} rows: {row.failure}."
                    )
            elif row.key not in self.report.remaining:
                found.append(row)
        return found

    @property
    def _is_at_limit(self) -> bool:
        return self.options.limit is not None and self.report.written >= self.options.limit

    def _move_to(self, key: keys.Key | None) -> None:
        if key is not None:
            self.report.position = keys.as_text(self.table, key)

    def _labels_of(self, row: Found) -> list[str]:
        return [self.labels[number] for number in sorted(row.conditions)]

    def _count(self, rows: Sequence[Found]) -> None:
        for row in rows:
            self.report.repaired.update(self._labels_of(row))

    def _note_remaining(self, row: Found, message: str) -> None:
        shown = keys.shown(self.table, row.key)
        self.report.remaining[row.key] = Remaining(shown, self._labels_of(row), message)
