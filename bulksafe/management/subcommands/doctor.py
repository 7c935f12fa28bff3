"""``manage.py bulksafe doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe import inspection
from bulksafe.declarations import Capture
from bulksafe.declarations.options import DEFAULT_LANE
from bulksafe.declarations.receivers import lanes, receivers, served_queues
from bulksafe.dispatch.sources import known
from bulksafe.management.subcommands import CLEAN, FINDINGS, Subcommand, ownership, store_of
from bulksafe.outbox import rebasing
from bulksafe.outbox.holding import CURSOR, LONG, OUTBOX, holders
from bulksafe.outbox.parking import EVERY_RECEIVER
from bulksafe.outbox.state import state, workers
from bulksafe.rendering.quoting import literal

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from django.core.management.base import BaseCommand

    from bulksafe.outbox.store import Store

_DESCRIPTION = """\
Find out why after-commit receivers are not called although nothing has failed: captures
that are not installed, queues that no listener serves, that were never started or are no longer
declared, parked events whose receiver is gone, an outbox that was restored from a dump of another
cluster, calls that run for long, and sessions whose locks keep the outbox from being emptied or a
queue from advancing.

It also lists which roles may use bulksafe's tables, and finds privileges that the settings do not
name, missing privileges, and objects that differ from those that bulksafe's migrations create.

--rebase repairs a restored outbox: transaction numbers do not survive a dump. No waiting event is
lost, and none is delivered twice. A listener whose role owns bulksafe's tables does it by itself
when it connects.

exit status: 0 all is well, 1 there are findings, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe doctor             report problems
  manage.py bulksafe doctor --rebase    after pg_restore into a new cluster
  manage.py bulksafe doctor --held 5    also name sessions whose locks are only 5 seconds old
"""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--rebase", action="store_true", help="renumber the events of a restored dump"
    )
    parser.add_argument(
        "--held",
        type=float,
        default=LONG,
        metavar="SECONDS",
        help="name calls that run, and sessions that hold a lock, for longer than this "
        f"(default: {LONG:.0f})",
    )


def _run(command: BaseCommand, *, database: str, rebase: bool, held: float, **options: Any) -> int:
    store = store_of(database)
    if rebase:
        done = rebasing.rebase(store)
        command.stdout.write(
            "The events were renumbered."
            if done
            else "There is nothing to renumber: the numbers are those of this cluster."
        )
    for line in ownership.summary(database):
        command.stdout.write(line)
    found = list(findings(store, held))
    if not rebase:
        # A restored outbox is renumbered before its listeners start.
        found += _unserved(store)
    for fact, fix in found:
        command.stdout.write(command.style.ERROR(fact))
        command.stdout.write(f"  {fix}")
    if not found:
        command.stdout.write("No findings.")
    return FINDINGS if found else CLEAN


def findings(store: Store, held: float = LONG) -> Iterator[tuple[str, str]]:
    """Findings, as (fact, fix) pairs.

    Args:
        held: seconds after which a lock is a finding.
    """
    yield from ownership.findings(store.using)
    yield from _captures(store)
    yield from _queues(store)
    yield from _parked(store)
    yield from _calls(store, held)
    yield from _locks(store, held)
    if rebasing.is_ahead(store):
        yield (
            "The outbox was restored from a dump of another cluster: its events wait for "
            "transactions that do not exist here.",
            "Run “manage.py bulksafe doctor --rebase”.",
        )


def _unserved(store: Store) -> Iterator[tuple[str, str]]:
    served = served_queues()
    for queue in state(store, known(store.using)).unserved:
        if queue not in served:
            continue  # no listener of this code would serve it, and it is a finding of its own
        yield (
            f"Events wait in the queue {queue!r}, and no listener serves it.",
            "Run “manage.py bulksafe listen”.",
        )


def _captures(store: Store) -> Iterator[tuple[str, str]]:
    for status in inspection.statuses(store.using):
        if status.kind != Capture.__name__ or not status.is_fault:
            continue
        if status.state == inspection.SWITCHED_OFF:
            yield (
                f'{status.label} is switched off, and BULKSAFE["ROLLOUT"] does not list its model: '
                f"receivers do not run for changes of the table {status.table}.",
                status.fix,
            )
        else:
            yield (
                f"{status.label} is {status.state}: changes of the table {status.table} are "
                "not captured as the code says.",
                status.fix,
            )


def _queues(store: Store) -> Iterator[tuple[str, str]]:
    named, begun = lanes(), store.lanes()
    for queue, atomic in sorted(named - begun):
        yield (
            f"The queue {queue!r} {_option(atomic)} was never started: it gets no events yet.",
            "Run migrate, or start a listener that serves it.",
        )
    for queue, atomic in sorted(begun - named - {DEFAULT_LANE}):
        yield (
            f"No receiver of this code has the queue {queue!r} {_option(atomic)}: its events are "
            "kept, but no listener reads them, and the outbox cannot be emptied.",
            "Start a listener of the release that has such receivers. If none will, run “manage.py "
            "bulksafe prune --queues”, which gives these events up.",
        )


def _calls(store: Store, held: float) -> Iterator[tuple[str, str]]:
    for worker in workers(store):
        if worker.call_since is not None and worker.call_seconds > held:
            yield (
                f"The receiver {worker.receiver!r} has run for {worker.call_seconds:,.0f} s for "
                f"{worker.source} {worker.key}, in process {worker.pid} on {worker.host}.",
                "Its timeout= ends it. Until then its row waits, and its worker of the queue "
                f"{worker.queue!r}: “listen --concurrency {worker.queue}=2” adds a second worker.",
            )


def _option(atomic: bool) -> str:
    return "with atomic=True" if atomic else "with atomic=False"


def _parked(store: Store) -> Iterator[tuple[str, str]]:
    known = {receiver.name for receiver in receivers}
    for name, count in store.rows("parked_receivers"):
        if name == EVERY_RECEIVER:
            yield (
                f"Events that were read by a listener whose code has no receivers for their table: "
                f"{count:,}.",
                "Start the listener with the current code; if the receivers were removed, run "
                f"migrate and “manage.py bulksafe discard --receiver '{EVERY_RECEIVER}'”.",
            )
        elif name not in known:
            yield (
                f"Parked events that wait for the receiver {name!r}, which is not in this code: "
                f"{count:,}.",
                f"Run “manage.py bulksafe retry --receiver {name} --rename …” if it was "
                "renamed, or “discard”.",
            )


def _locks(store: Store, seconds: float) -> Iterator[tuple[str, str]]:
    for holder in holders(store, seconds):
        end = f"SELECT pg_terminate_backend({holder.pid});"
        if holder.pid is None:
            end = f"ROLLBACK PREPARED {literal(holder.application)};"
        if holder.what == OUTBOX:
            yield (
                f"Slot {holder.slot} of the outbox is delivered and cannot be emptied: {holder}.",
                f"Wait for it (pg_dump holds its locks until it is done), or end it: {end}",
            )
        elif holder.what == CURSOR:
            yield (
                f"Queues may be blocked: {holder}.",
                "A listener holds such a lock while its receivers run: find out what they wait "
                f"for. End any other session: {end}",
            )
        elif "ShareLock" in holder.modes.split(", "):
            yield (
                f"Listeners poll for events: {holder}.",
                "Nothing is lost or late: they check 20 times a second meanwhile. It is "
                f"a long write transaction or a manual lock. To end it: {end}",
            )
        else:
            yield (
                f"Each writing transaction sends a NOTIFY: {holder}.",
                "Nothing is lost or late. Listeners do not hold this lock for so long. To end it: "
                f"{end}",
            )


DOCTOR = Subcommand(
    "doctor",
    "find out why receivers are not called",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
