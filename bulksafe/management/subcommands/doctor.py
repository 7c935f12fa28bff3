"""``manage.py bulksafe doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe import inspection
from bulksafe.declarations import Capture
from bulksafe.declarations.receivers import DEFAULT_LANE, lanes, receivers
from bulksafe.management.subcommands import CLEAN, FINDINGS, Subcommand, store_of
from bulksafe.outbox import rebasing
from bulksafe.outbox.parking import EVERY_RECEIVER

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from bulksafe.outbox.store import Store

_DESCRIPTION = """\
Look for what keeps after-commit receivers from being called although nothing has failed: captures
that are not installed, queues that nobody begins or ends, parked events whose receiver is gone, and
an outbox that was restored from a dump of another cluster.

--rebase mends the last one, which the listener also does by itself when it connects: transaction
numbers do not survive a dump. Nothing that waits is lost, and nothing comes twice.

exit status: 0 all is well, 1 there are findings, 2 an error
"""

_EXAMPLES = """\
  manage.py bulksafe doctor             look
  manage.py bulksafe doctor --rebase    after pg_restore into a new cluster
"""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--rebase", action="store_true", help="renumber the events of a restored dump"
    )


def _run(command: Any, *, database: str, rebase: bool, **options: Any) -> int:
    store = store_of(database)
    if rebase:
        done = rebasing.rebase(store)
        command.stdout.write(
            "The events were renumbered." if done else "The numbers are those of this cluster."
        )
    found = list(findings(store))
    for fact, fix in found:
        command.stdout.write(command.style.ERROR(fact))
        command.stdout.write(f"  {fix}")
    if not found:
        command.stdout.write("No findings.")
    return FINDINGS if found else CLEAN


def findings(store: Store) -> Iterator[tuple[str, str]]:
    """What is wrong, as (fact, fix) pairs."""
    yield from _captures(store)
    yield from _queues(store)
    yield from _parked(store)
    if rebasing.is_ahead(store):
        yield (
            "The outbox was restored from a dump of another cluster: its events wait for "
            "transactions that are not there.",
            "Run “manage.py bulksafe doctor --rebase”.",
        )


def _captures(store: Store) -> Iterator[tuple[str, str]]:
    for status in inspection.statuses(store.using):
        if status.kind == Capture.__name__ and status.state != inspection.INSTALLED:
            yield (
                f"{status.label} is {status.state}: changes of the table {status.table} are "
                "not captured as the code says.",
                "Run makemigrations and migrate; for a disabled one, enable the trigger.",
            )


def _queues(store: Store) -> Iterator[tuple[str, str]]:
    named, begun = lanes(), store.lanes()
    for queue, atomic in sorted(named - begun):
        yield (
            f"The queue {queue!r} has not begun {_option(atomic)}: no migration has seen it.",
            "Run migrate.",
        )
    for queue, atomic in sorted(begun - named - {DEFAULT_LANE}):
        yield (
            f"No receiver of this code has the queue {queue!r} {_option(atomic)}: its events are "
            "kept for nobody, and the outbox cannot be emptied.",
            "If that is for good, run “manage.py bulksafe prune --queues”.",
        )


def _option(atomic: bool) -> str:
    return "with atomic=True" if atomic else "with atomic=False"


def _parked(store: Store) -> Iterator[tuple[str, str]]:
    known = {receiver.name for receiver in receivers}
    for name, count in store.rows("parked_receivers"):
        if name == EVERY_RECEIVER:
            yield (
                f"{count} events were read by a listener whose code has no receivers for their "
                "table.",
                "Start the listener with the present code; if the receivers are gone for good, run "
                f"migrate and “manage.py bulksafe discard --receiver '{EVERY_RECEIVER}'”.",
            )
        elif name not in known:
            yield (
                f"{count} parked events wait for the receiver {name!r}, which is not in this code.",
                f"Run “manage.py bulksafe retry --receiver {name} --rename …” if it has another "
                "name now, or “discard”.",
            )


DOCTOR = Subcommand(
    "doctor",
    "find out why receivers are not called",
    _DESCRIPTION,
    _EXAMPLES,
    _arguments,
    _run,
)
