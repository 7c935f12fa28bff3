"""``manage.py bulksafe replay``."""

from __future__ import annotations

import json
import shlex
import time
from argparse import ArgumentTypeError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS

from bulksafe import inspection
from bulksafe.declarations import Capture
from bulksafe.declarations.lineage import lineage
from bulksafe.declarations.receivers import by_name, receivers
from bulksafe.declarations.senders import resolve
from bulksafe.dispatch.replayable import NotReplayable, operation_of
from bulksafe.dispatch.replaying import BadRows, Rows
from bulksafe.management.subcommands import CLEAN, FINDINGS, Subcommand, failed, store_of
from bulksafe.management.subcommands.ending import ended_by_sigterm
from bulksafe.management.subcommands.numbers import pause, positive
from bulksafe.planning.problems import Refused, did_you_mean

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping, Sequence

    from django.core.management.base import BaseCommand
    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.replaying import Batch, Key
    from bulksafe.outbox.store import Store

_DESCRIPTION = """\
Call an after-commit receiver for existing rows: to build a search index, or after a
receiver was added to a table with rows. No other receiver is called.

Each row becomes an event in the outbox, and the listener delivers it with everything else, in the
order of the row's changes. The receiver gets the same arguments as for a save() without changes:
created=False, an empty "changed", "old" equal to "instance", and context={"replay": True}. Rows of
a many-to-many table are sent as post_add.

A when= over the new row selects the rows. One that compares with the old row (old__…) is refused
unless --ignore-when is given.

Rows are read in primary key order, one transaction per batch. A replay that is interrupted, also by
SIGTERM, prints the command that resumes it.

exit status: 0 done, 1 no row was selected, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe replay shop.index_order.post_save                 every row
  manage.py bulksafe replay shop.index_order.post_save --where status=paid
  manage.py bulksafe replay shop.index_order.post_save \\
      --where '{"amount__gte": 10, "status__in": ["paid"]}'            Django's lookups, as JSON
  manage.py bulksafe replay shop.index_order.post_save --dry-run       count the rows
  manage.py bulksafe replay shop.index_order.post_save --sleep 0.2     give the listener time
  manage.py bulksafe replay shop.index_order.post_save --after 48211   resume after this key
"""

#: Rows per transaction.
_BATCH = 500
#: Seconds between two progress lines that do not overwrite each other.
_EVERY = 10.0


def _lookups(text: str) -> dict[str, Any]:
    """``status=paid``, or a JSON object.

    The value is text, which Django converts as in a form. JSON is for other values: a list, true,
    false, null, or a quoted string. A bare number stays text: leading zeros matter to a CharField.
    """
    if text.lstrip().startswith("{"):
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
        return found
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ArgumentTypeError(f"{text!r} is neither LOOKUP=VALUE nor a JSON object")
    return {name.strip(): _value(value)}


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if is_number else value


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("receiver", metavar="RECEIVER", help="its name, as shown by “status”")
    parser.add_argument(
        "--where",
        action="append",
        type=_lookups,
        default=[],
        metavar="LOOKUP=VALUE",
        help="only rows that match; may be repeated, or be one JSON object",
    )
    parser.add_argument(
        "--model", metavar="app.Model", help="only rows of this model, if the receiver has several"
    )
    parser.add_argument(
        "--after", metavar="KEY", help="only rows after this primary key (a JSON array for several)"
    )
    parser.add_argument(
        "--batch",
        type=positive,
        default=_BATCH,
        metavar="N",
        help=f"rows per transaction (default: {_BATCH})",
    )
    parser.add_argument(
        "--sleep", type=pause, default=0.0, metavar="S", help="seconds between two batches"
    )
    parser.add_argument(
        "--ignore-when", action="store_true", help="also replay rows that do not meet its when="
    )
    parser.add_argument("--dry-run", action="store_true", help="count the rows, and write nothing")


def _run(
    command: BaseCommand,
    *,
    receiver: str,
    where: Sequence[Mapping[str, Any]],
    model: str | None,
    after: str | None,
    batch: int,
    sleep: float,
    ignore_when: bool,
    dry_run: bool,
    database: str,
    verbosity: int = 1,
    **options: Any,
) -> int:
    store = store_of(database)
    found = _receiver(receiver)
    lookups = {name: value for given in where for name, value in given.items()}
    try:
        operation_of(found)
        models = _models(found, model)
        key = _key(after, models)
        listed = [Rows(found, one, database, lookups, key, ignore_when) for one in models]
        _check_installed(store, found, models)
        for rows in listed:
            rows.check()
    except Refused as refused:
        problem = refused.problem
        raise failed(f"The condition of {receiver!r}: {problem.fact} {problem.fix}") from refused
    except (BadRows, NotReplayable) as error:
        raise failed(str(error)) from error
    if dry_run:
        return _count(command, listed)
    chosen = _options(lookups, batch, sleep, ignore_when=ignore_when, database=database)
    events = 0
    for index, rows in enumerate(listed):
        progress = _Progress(command, rows, verbosity)
        try:
            with ended_by_sigterm():
                for done in rows.replay(batch, sleep):
                    progress.add(done)
        except BaseException:
            progress.interrupted(listed[index + 1 :], chosen)
            raise
        progress.end()
        events += progress.events
    return CLEAN if events else FINDINGS


def _options(
    lookups: Mapping[str, Any], batch: int, sleep: float, *, ignore_when: bool, database: str
) -> list[str]:
    """The options that a command to resume repeats."""
    return [
        *(["--where", json.dumps(lookups)] if lookups else []),
        *(["--batch", str(batch)] if batch != _BATCH else []),
        *(["--sleep", f"{sleep:g}"] if sleep else []),
        *(["--ignore-when"] if ignore_when else []),
        *(["--database", database] if database != DEFAULT_DB_ALIAS else []),
    ]


def _receiver(name: str) -> Receiver:
    found = by_name(name)
    if found is None:
        known = [receiver.name for receiver in receivers]
        hint = did_you_mean(name, known, f"Known receivers: {', '.join(known) or 'none'}.")
        raise failed(f"There is no receiver {name!r}. {hint}")
    return found


def _models(receiver: Receiver, label: str | None) -> list[type[Model]]:
    models = receiver.models()
    if label is None:
        return models
    chosen = [one for one in models if one in resolve(label)]  # a proxy stands for its table
    if not chosen:
        known = [one._meta.label for one in models]
        hint = did_you_mean(label, known, f"It has: {', '.join(known)}.")
        raise failed(f"{receiver.name!r} is not a receiver of {label!r}. {hint}")
    return chosen


def _key(text: str | None, models: Sequence[type[Model]]) -> Key | None:
    if text is None:
        return None
    if len(models) > 1:
        labels = ", ".join(one._meta.label for one in models)
        raise failed(f"--after needs --model: the receiver has rows of {labels}.")
    if len(models[0]._meta.pk_fields) == 1:
        return (text,)
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise failed(f"--after {text!r} is not a JSON array of the primary key's values.")
    return tuple(value if isinstance(value, str) else json.dumps(value) for value in values)


def _check_installed(store: Store, receiver: Receiver, models: Sequence[type[Model]]) -> None:
    """Refuse if events would never be delivered, or changes during the replay not captured."""
    if (receiver.queue, receiver.atomic) not in store.lanes():
        raise failed(
            f"The queue {receiver.queue!r} of {receiver.name!r} was never started: run "
            f"“manage.py migrate --database {store.using}”."
        )
    tables = {part._meta.db_table for one in models for part in lineage(one)}
    for status in inspection.statuses(store.using, tables):
        is_off = status.state in {inspection.MISSING, inspection.DISABLED, inspection.SWITCHED_OFF}
        if status.kind == Capture.__name__ and is_off:
            raise failed(
                f"{status.label} is {status.state}: changes during the replay would be missed. "
                f"{status.fix}"
            )


def _count(command: BaseCommand, listed: Sequence[Rows]) -> int:
    total = 0
    for rows in listed:
        count = rows.count()
        command.stdout.write(f"{rows.model._meta.label}: {count:,} rows would be replayed.")
        total += count
    return CLEAN if total else FINDINGS


@dataclass
class _Progress:
    """Shows the progress of a replay: one changing line, or a new line every ten seconds."""

    command: BaseCommand
    rows: Rows
    verbosity: int
    done: int = 0
    events: int = 0
    last: Key | None = None
    estimate: int = 0
    _said: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.last = self.rows.after
        if self.verbosity:
            self.estimate = self.rows.estimate()

    def add(self, batch: Batch) -> None:
        self.done += batch.rows
        self.events += batch.events
        self.last = batch.last
        if self.verbosity and self._is_terminal:
            self.command.stdout.write(f"\r\x1b[K{self._text()}", ending="")
            self.command.stdout.flush()
        elif self.verbosity and time.monotonic() - self._said >= _EVERY:
            self.command.stdout.write(self._text())
            self._said = time.monotonic()

    def interrupted(self, following: Sequence[Rows], options: Sequence[str]) -> None:
        """Print how to resume: committed batches stay.

        Args:
            following: the models that come after this one.
            options: of this command.
        """
        if self.verbosity and self._is_terminal:
            self.command.stdout.write("")
        after = ["--after", _shown(self.last)] if self.last is not None else []
        commands = [self._again(self.rows, *after, *options)]
        commands += [self._again(rows, *options) for rows in following]
        self.command.stderr.write("\n".join(["Interrupted. To resume:", *commands]))

    def _again(self, rows: Rows, *options: str) -> str:
        words = ["manage.py", "bulksafe", "replay", rows.receiver.name]
        return shlex.join([*words, "--model", rows.model._meta.label, *options])

    def end(self) -> None:
        if not self.verbosity:
            return
        if self._is_terminal:
            self.command.stdout.write("\r\x1b[K", ending="")
        text = f"{self._label}: {self.done:,} rows, {self.events:,} events"
        last = f", last key {_shown(self.last)}" if self.last is not None else ""
        self.command.stdout.write(f"{text} for the queue {self.rows.receiver.queue!r}{last}.")

    @property
    def _label(self) -> str:
        return self.rows.model._meta.label

    @property
    def _is_terminal(self) -> bool:
        return bool(self.command.stdout.isatty())

    def _text(self) -> str:
        total = max(self.estimate, self.done)
        shown = f"{self._label}: {self.done:,} of about {total:,} rows, {self.events:,} events"
        return f"{shown}, last key {_shown(self.last)}" if self.last is not None else shown


def _shown(key: Key) -> str:
    return key[0] if len(key) == 1 else json.dumps(key)


REPLAY = Subcommand(
    "replay",
    "call a receiver for existing rows",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
