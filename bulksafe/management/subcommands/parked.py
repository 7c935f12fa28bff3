"""``manage.py bulksafe retry``, ``discard`` and ``prune``: manage failed events."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from django.db import transaction

from bulksafe.declarations.options import DEFAULT_LANE
from bulksafe.declarations.receivers import lanes, listened
from bulksafe.management.subcommands import (
    CLEAN,
    FINDINGS,
    Subcommand,
    failed,
    store_of,
    undelivered,
)
from bulksafe.outbox import keeping, parked
from bulksafe.outbox.parked import Selection, Target
from bulksafe.planning.problems import did_you_mean

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from bulksafe.outbox.store import Store

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _age(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not an age: write 30m, 12h or 7d")
    return int(match[1]) * _SECONDS[match[2]]


def _selecting(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", type=int, metavar="ID", help="parked events")
    parser.add_argument("--receiver", metavar="NAME", help="events of this receiver")
    parser.add_argument("--queue", metavar="NAME", help="events of this queue")
    parser.add_argument("--dead", action="store_true", help="dead letters only")
    parser.add_argument("--all", action="store_true", help="all parked events")


def _is_selected(options: dict[str, Any]) -> bool:
    return any(options[name] for name in ("ids", "receiver", "queue", "dead", "all"))


def _selection(options: dict[str, Any]) -> Selection:
    if not _is_selected(options):
        raise failed("Select events: give ids, --receiver, --queue, --dead or --all.")
    return Selection(
        options["ids"],
        options["receiver"],
        options["queue"],
        state="dead" if options["dead"] else None,
    )


def _retry_arguments(parser: ArgumentParser) -> None:
    _selecting(parser)
    parser.add_argument(
        "--rename",
        metavar="NAME",
        help="move them to this receiver and its queue, after a rename in the code",
    )


def _retry(command: BaseCommand, database: str, rename: str | None, **options: Any) -> int:
    store = store_of(database)
    selection = _selection(options)
    due, behind = parked.retry(store, selection, _target(rename))
    events = "parked event is" if due == 1 else "parked events are"
    command.stdout.write(f"{due:,} {events} due now.")
    if behind:
        wait = "waits" if behind == 1 else "wait"
        command.stdout.write(f"{behind:,} more {wait} for an earlier event of the same row.")
    return CLEAN if due or behind else FINDINGS


def _target(name: str | None) -> Target:
    if name is None:
        return Target()
    known = {receiver.name: receiver for receiver in listened()}
    if name not in known:
        hint = did_you_mean(name, known, f"Known receivers: {', '.join(known) or 'none'}.")
        raise failed(f"There is no receiver {name!r} that runs after the commit. {hint}")
    return Target(name, known[name].queue, known[name].atomic)


def _discard_arguments(parser: ArgumentParser) -> None:
    _selecting(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the number, delete nothing")
    undelivered.add_arguments(parser)


def _discard(
    command: BaseCommand, database: str, *, interactive: bool, dry_run: bool, **options: Any
) -> int:
    store = store_of(database)
    if options["undelivered"]:
        if _is_selected(options):
            # Otherwise “--undelivered --queue mail” would discard the events of all queues.
            raise failed(
                "--undelivered discards all events of all queues: it cannot be combined with ids, "
                "--receiver, --queue, --dead or --all."
            )
        return undelivered.discard(command, store, interactive=interactive, dry_run=dry_run)
    selection = _selection(options)
    count = parked.count(store, selection)
    named = f"{count:,} parked {'event' if count == 1 else 'events'}"
    if dry_run:
        command.stdout.write(f"Would discard {named}.")
        return CLEAN if count else FINDINGS
    must_ask = options["all"] and interactive and count
    if must_ask and not undelivered.is_confirmed(command, store, named):
        command.stdout.write("Nothing was discarded.")
        return FINDINGS
    count = parked.discard(store, selection)
    events = "parked event was" if count == 1 else "parked events were"
    command.stdout.write(f"{count:,} {events} discarded: the receivers never ran.")
    return CLEAN if count else FINDINGS


def _prune_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=_age,
        default="30d",
        metavar="AGE",
        help="dead letters first parked longer ago than this, even if retried since (default: 30d)",
    )
    parser.add_argument(
        "--queues",
        action="store_true",
        help="also forget queues without receivers in this code, unless they have parked events: "
        "their undelivered events are given up",
    )


def _prune(
    command: BaseCommand, database: str, older_than: float, queues: bool, **options: Any
) -> int:
    store = store_of(database)
    count = parked.discard(store, Selection(state="dead", older_than=older_than))
    command.stdout.write(f"Dead letters discarded: {count:,}.")
    has_forgotten_all = not queues or _forget_queues(command, store)
    # The first pass switches to the next slot, the second one empties delivered slots.
    emptied = {slot for _ in range(2) for slot in keeping.tidy(store)}
    command.stdout.write(f"Slots of the outbox emptied: {len(emptied)}.")
    return CLEAN if has_forgotten_all else FINDINGS


def _forget_queues(command: BaseCommand, store: Store) -> bool:
    """Forget the queues that this code does not have.

    Returns:
        False if some have parked events, which ``status`` would no longer count.
    """
    found = []
    with transaction.atomic(using=store.using):
        for queue, atomic in sorted(store.lanes() - lanes() - {DEFAULT_LANE}):
            kept = parked.count(store, Selection(queue=queue, atomic=atomic))
            found.append(kept)
            if kept:
                command.stdout.write(
                    f"The queue {queue!r} was kept, because it has parked events or dead letters "
                    f"with atomic={atomic} ({kept:,}). First “retry”, “retry --rename” or "
                    "“discard” them; “status --parked” lists them."
                )
            else:
                store.rows("forget_queue", {"queue": queue, "atomic": atomic})
                command.stdout.write(f"The queue {queue!r} was forgotten.")
    return not any(found)


RETRY = Subcommand(
    "retry",
    "retry failed events",
    """\
Let a listener retry parked events and dead letters. Their attempts count from zero again.

Use it after the receiver is fixed. The events of a row keep their order, but a dead letter with
on_dead="skip" comes after the later events that were delivered meanwhile.

exit status: 0 done, 1 there were none, 2 an error
""",
    """\
  manage.py bulksafe retry 17                                     one event
  manage.py bulksafe retry --receiver shop.receivers.notify@shop.Order.post_save
  manage.py bulksafe retry --all                                  everything
  manage.py bulksafe retry --receiver OLD --rename NEW            the receiver was renamed
""",
    _retry_arguments,
    _retry,
)

DISCARD = Subcommand(
    "discard",
    "give up failed events",
    """\
Delete parked events and dead letters. Their receivers are never called for them; events that wait
behind them continue.

--undelivered deletes all waiting events, parked or not: before “migrate bulksafe zero”, which
refuses to lose them, or in a copy of a production database. Listeners and writers may be running.

exit status: 0 done, 1 there were none or you did not confirm, 2 an error
""",
    """\
  manage.py bulksafe discard 17                     one event
  manage.py bulksafe discard --dead --queue mail    the dead letters of a queue
  manage.py bulksafe discard --undelivered          all waiting events, after a confirmation
""",
    _discard_arguments,
    _discard,
)

PRUNE = Subcommand(
    "prune",
    "delete old dead letters, empty delivered slots",
    """\
Delete old dead letters, and empty the outbox slots whose events are all delivered.

exit status: 0 done, 1 a queue was kept because it has parked events, 2 an error
""",
    """\
  manage.py bulksafe prune                     dead letters older than 30 days
  manage.py bulksafe prune --older-than 12h    older than 12 hours
  manage.py bulksafe prune --queues            also queues that are no longer in the code
""",
    _prune_arguments,
    _prune,
)
