"""``manage.py bulksafe status``."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bulksafe.management.subcommands import CLEAN, FINDINGS, Subcommand, store_of, table
from bulksafe.outbox import parked
from bulksafe.outbox.parked import ParkedEvent, Selection
from bulksafe.outbox.state import QueueState, State, state

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from bulksafe.outbox.store import Store

_DESCRIPTION = """\
Say how the after-commit receivers are doing: for every queue how many committed events wait and for
how long, how many failed and will be tried again (parked), how many were given up (dead), how many
have a receiver or a table that the code does not know (orphaned), and how many daemons listen.

exit status: 0 all is well, 1 there are dead letters, or events wait and nobody listens, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe status             the state of every queue
  manage.py bulksafe status --parked    with each parked event and its error
  manage.py bulksafe status --id 17     one parked event whole: traceback, images, context
  manage.py bulksafe status --json      for a machine
"""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--parked", action="store_true", help="list the parked events")
    parser.add_argument("--id", type=int, metavar="ID", help="show one parked event whole")
    parser.add_argument("--limit", type=int, default=100, help="of the list (default: 100)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(
    command: Any,
    *,
    database: str,
    parked: bool,
    id: int | None,  # noqa: A002  (the option's name)
    limit: int,
    json: bool,
    **options: Any,
) -> int:
    store = store_of(database)
    found = state(store)
    events = _events(store, parked, id, limit)
    if json:
        said = {**asdict(found), "parked": [asdict(event) for event in events]}
        command.stdout.write(jsonlib.dumps(said, indent=2, default=str))
    elif id is not None:
        _print_event(command, events, id)
    else:
        _print(command, found, events, database)
    return _status(found)


def _status(found: State) -> int:
    is_well = all(not queue.dead for queue in found.queues) and not _unheard(found)
    return CLEAN if is_well else FINDINGS


def _unheard(found: State) -> list[str]:
    unheard = (q.queue for q in found.queues if q.lag_events and not q.listeners)
    return list(dict.fromkeys(unheard))


def _events(store: Store, listed: bool, number: int | None, limit: int) -> list[ParkedEvent]:
    if number is not None:
        return parked.find(store, Selection([number]), 1)
    return parked.find(store, Selection(), limit) if listed else []


_HEADER = ("queue", "runs", "waiting events", "oldest", "parked", "dead", "orphaned", "listeners")


def _print(command: Any, found: State, events: list[ParkedEvent], database: str) -> None:
    for text in table(_HEADER, [_row(queue) for queue in found.queues]):
        command.stdout.write(text)
    size = sum(slot.bytes for slot in found.slots)
    command.stdout.write(f"\noutbox of the database {database!r}: {size / 1024 / 1024:.1f} MB")
    for listener in found.listeners:
        command.stdout.write(
            f"listener {listener.name} for {', '.join(listener.queues)} since "
            f"{listener.since:%Y-%m-%d %H:%M:%S %Z}"
        )
    for warning in _warnings(found):
        command.stdout.write(command.style.ERROR(warning))
    if events:
        _print_parked(command, events)


def _row(queue: QueueState) -> tuple[str, ...]:
    return (
        queue.queue,
        "in a transaction" if queue.atomic else "outside one",
        f"{queue.lag_events:,}",
        f"{queue.lag_seconds:,.1f} s" if queue.lag_events else "-",
        f"{queue.waiting:,}",
        f"{queue.dead:,}",
        f"{queue.orphaned:,}",
        str(queue.listeners),
    )


def _warnings(found: State) -> Iterator[str]:
    for queue in _unheard(found):
        yield f"Nobody listens to the queue {queue!r}: manage.py bulksafe listen"
    if any(queue.dead for queue in found.queues):
        yield (
            "There are dead letters: “bulksafe status --parked” lists them, “retry” and “discard” "
            "deal with them."
        )


def _print_parked(command: Any, events: list[ParkedEvent]) -> None:
    header = ("id", "state", "attempts", "receiver", "row", "error")
    rows = [
        (
            str(event.id),
            event.state,
            str(event.attempts),
            event.receiver,
            f"{event.table} {event.key}",
            (event.error or "waits behind another").partition("\n")[0][:100],
        )
        for event in events
    ]
    command.stdout.write("")
    for text in table(header, rows):
        command.stdout.write(text)


def _print_event(command: Any, events: list[ParkedEvent], number: int) -> None:
    if not events:
        command.stdout.write(f"There is no parked event {number}.")
        return
    for name, value in asdict(events[0]).items():
        text = str(value)
        command.stdout.write(f"{name}:\n{text}" if "\n" in text else f"{name}: {text}")


STATUS = Subcommand(
    "status",
    "say what waits, what failed and who listens",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
