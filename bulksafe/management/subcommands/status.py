"""``manage.py bulksafe status``."""

from __future__ import annotations

import json as jsonlib
from argparse import ArgumentTypeError
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bulksafe import inspection
from bulksafe.declarations.receivers import served_queues
from bulksafe.dispatch.sources import known
from bulksafe.management.subcommands import CLEAN, FINDINGS, Subcommand, store_of, table
from bulksafe.outbox import parked
from bulksafe.outbox.parked import ParkedEvent, Selection
from bulksafe.outbox.state import QueueState, RunningWorker, State, state
from bulksafe.outbox.violations import Count

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from django.core.management.base import BaseCommand

    from bulksafe.outbox.store import Store

_DESCRIPTION = """\
Show the state of the after-commit receivers: for every queue how many committed events wait and for
how long, how many calls are parked (made one by one: they failed and are retried, wait behind a
failed call, or run alone), how many were given up (dead), how many listeners run, and which calls
take long.

exit status: 0 all is well; 1 there are dead letters, a queue with events or parked calls has no
listener, or an event has been due for longer than --max-lag; 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe status                the state of every queue, and the calls that take long
  manage.py bulksafe status --parked       with each parked event and its error
  manage.py bulksafe status --id 17        all of one parked event: traceback, images, context
  manage.py bulksafe status --max-lag 60   for a monitor: 1 if an event has been due for over 60 s
  manage.py bulksafe status --json         for a machine
"""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--parked", action="store_true", help="list the parked events")
    parser.add_argument("--id", type=int, metavar="ID", help="show all of one parked event")
    parser.add_argument("--limit", type=int, default=100, help="of the list (default: 100)")
    parser.add_argument(
        "--max-lag",
        type=_seconds,
        metavar="SECONDS",
        help="exit with 1 if an event has been due for longer",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(
    command: BaseCommand,
    *,
    database: str,
    parked: bool,
    id: int | None,  # noqa: A002  (the option's name)
    limit: int,
    max_lag: float | None,
    json: bool,
    **options: Any,
) -> int:
    store = store_of(database)
    code = known(database)
    found = state(store, code)
    selection = Selection([id]) if id is not None else Selection() if parked else None
    events = _events(store, selection, limit)
    longest = store.longest_due({queue.queue for queue in found.queues}, code)
    if json:
        said = {
            "longest_due_seconds": round(longest, 1),
            **asdict(found),
            "parked": [asdict(event) for event in events],
        }
        command.stdout.write(jsonlib.dumps(said, indent=2, default=str))
    elif id is not None:
        _print_event(command, events, id)
    else:
        _print(command, found, events, database)
        _print_omission(command, store, events, limit)
    if max_lag is not None and longest > max_lag:
        command.stderr.write(f"An event has been due for {longest:,.1f} s.")
        return FINDINGS
    return _status(found)


def _status(found: State) -> int:
    is_well = all(not queue.dead for queue in found.queues) and not found.unserved
    return CLEAN if is_well else FINDINGS


def _events(store: Store, selection: Selection | None, limit: int) -> list[ParkedEvent]:
    return [] if selection is None else parked.find(store, selection, limit)


def _switched_off(database: str) -> list[str]:
    found = inspection.statuses(database)
    return [status.label for status in found if status.state == inspection.SWITCHED_OFF]


_HEADER = ("queue", "atomic", "waiting", "oldest_seconds", "parked", "dead", "listeners")


def _print(command: BaseCommand, found: State, events: list[ParkedEvent], database: str) -> None:
    for text in table(_HEADER, [_row(queue) for queue in found.queues]):
        command.stdout.write(text)
    size = sum(slot.bytes for slot in found.slots)
    command.stdout.write(f"\noutbox of the database {database!r}: {size / 1024 / 1024:.1f} MB")
    for listener in found.listeners:
        # A role without pg_read_all_stats cannot see the start of other roles' sessions.
        since = f" since {listener.since:%Y-%m-%d %H:%M:%S %Z}" if listener.since else ""
        command.stdout.write(f"listener {listener.name} for {', '.join(listener.queues)}{since}")
    for worker in found.workers:
        if worker.call_since is not None:
            command.stdout.write(command.style.WARNING(running(worker)))
    for count in found.violations:
        command.stdout.write(command.style.WARNING(observed(count)))
    for label in _switched_off(database):
        command.stdout.write(f"{label} is switched off: nothing is captured for its receivers")
    for warning in _warnings(found):
        command.stdout.write(command.style.ERROR(warning))
    if events:
        _print_parked(command, events)


def running(worker: RunningWorker) -> str:
    """The line for a long call."""
    return (
        f"running: {worker.receiver} for {worker.source} {worker.key}, in process {worker.pid} on "
        f"{worker.host} (queue {worker.queue!r}), for {worker.call_seconds:,.0f} s, since "
        f"{worker.call_since:%Y-%m-%d %H:%M:%S %Z}"
    )


_MAKES_ROOM = "“bulksafe violations --delete” makes room"


def observed(count: Count) -> str:
    """The line for an invariant with recorded violations."""
    number = f"{count.count:,} recorded {'violation' if count.count == 1 else 'violations'}"
    more = (
        " and no room for more (“bulksafe violations --delete” makes room)" if count.is_full else ""
    )
    return f"{count.invariant}: {number}{more}, the last at {count.last:%Y-%m-%d %H:%M:%S %Z}"


def _row(queue: QueueState) -> tuple[str, ...]:
    return (
        queue.queue,
        "yes" if queue.atomic else "no",
        f"{queue.waiting:,}",
        f"{queue.oldest_seconds:,.1f}" if queue.waiting else "-",
        f"{queue.parked:,}",
        f"{queue.dead:,}",
        str(queue.listeners),
    )


def _warnings(found: State) -> Iterator[str]:
    served = served_queues()
    for queue in found.unserved:
        if queue in served:
            yield f"No listener serves the queue {queue!r}: start “manage.py bulksafe listen”."
        else:
            yield (
                f"No receiver of this code has the queue {queue!r}: start a listener of the "
                "release that has one, or run “manage.py bulksafe prune --queues”."
            )
    if any(queue.dead for queue in found.queues):
        yield (
            "There are dead letters: “bulksafe status --parked” lists them, “retry” and “discard” "
            "handle them."
        )


def _print_parked(command: BaseCommand, events: list[ParkedEvent]) -> None:
    header = ("id", "state", "attempts", "receiver", "source", "key", "error")
    rows = [
        (
            str(event.id),
            event.state,
            str(event.attempts),
            event.receiver,
            event.source,
            event.key,
            (event.error or "-").partition("\n")[0][:100],
        )
        for event in events
    ]
    command.stdout.write("")
    for text in table(header, rows):
        command.stdout.write(text)


def _print_omission(
    command: BaseCommand, store: Store, events: list[ParkedEvent], limit: int
) -> None:
    """The note on a truncated list."""
    if len(events) < limit:
        return
    left = parked.count(store, Selection()) - len(events)
    if left > 0:
        command.stdout.write(f"… and {left:,} more: --limit {limit + left}")


def _print_event(command: BaseCommand, events: list[ParkedEvent], number: int) -> None:
    if not events:
        command.stdout.write(f"There is no parked event {number}.")
        return
    for name, value in asdict(events[0]).items():
        text = str(value)
        command.stdout.write(f"{name}:\n{text}" if "\n" in text else f"{name}: {text}")


STATUS = Subcommand(
    "status",
    "show waiting events, failures and listeners",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
