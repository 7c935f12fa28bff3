"""Sessions whose locks keep the outbox from being emptied, or cursors from advancing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulksafe import conf
from bulksafe.outbox import keeping

if TYPE_CHECKING:
    from datetime import datetime

    from bulksafe.outbox.store import Store

#: The objects that a lock can block.
OUTBOX, CURSOR, SLEEPERS = "outbox", "cursor", "sleepers"

#: Seconds after which a lock is worth a finding: no listener holds one for so long.
LONG = 60.0


@dataclass(frozen=True)
class Holder:
    """A transaction that holds a lock.

    Attributes:
        what: ``OUTBOX``, ``CURSOR`` or ``SLEEPERS``.
        slot: the slot, for ``OUTBOX``.
        place: the table or the advisory lock.
        modes: PostgreSQL's names of the lock's modes.
        pid: its process; None for a prepared transaction.
        role: its user.
        application: its application_name, or the name of the prepared transaction.
        since: when the transaction began; None where the server does not say.
    """

    what: str
    slot: str | None
    place: str
    modes: str
    pid: int | None
    role: str | None
    application: str | None
    since: datetime | None

    def __str__(self) -> str:
        session = (
            f"process {self.pid}" if self.pid else f"the prepared transaction {self.application!r}"
        )
        name = f", application {self.application!r}" if self.pid and self.application else ""
        since = (
            f"{self.since:%Y-%m-%d %H:%M:%S %Z}"
            if self.since
            else "a time visible only to members of pg_read_all_stats"
        )
        return (
            f"{session} (user {self.role!r}{name}) holds {self.modes} on {self.place} since {since}"
        )


def holders(store: Store, seconds: float = LONG) -> list[Holder]:
    """The transactions whose blocking locks are older than ``seconds``."""
    slots = keeping.read_slots(store)
    # A sleeping listener holds its lock until it checks for events again.
    asleep = max(seconds, 2 * conf.get().POLL_INTERVAL)
    rows = store.rows("holders", {"slots": slots, "seconds": seconds, "asleep": asleep})
    return [Holder(*row) for row in rows]
