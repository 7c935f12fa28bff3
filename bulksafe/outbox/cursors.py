"""The position of each queue in the events of each bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bulksafe.outbox.windows import Snapshot, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The number of buckets for row keys; ``& 15`` in ``capture_rows.sql``.
BUCKETS = 16


@dataclass(frozen=True)
class Suspect:
    """The call in a batch during which a process died.

    Attributes:
        receiver: its receiver's name.
        seq: its event's number.
        error: how the process ended.
    """

    receiver: str
    seq: int
    error: str


@dataclass(frozen=True)
class Cursor:
    """The position of a queue in one bucket.

    Attributes:
        queue: the queue's name.
        atomic: the ``atomic`` option of its receivers.
        bucket: the bucket.
        window: the delivered transactions, and those to deliver next.
        batch: the number of the batch that begins now.
        is_unfinished: whether the previous batch was started but not finished: its process died.
        suspect: the call that it died in, if known.
    """

    queue: str
    atomic: bool
    bucket: int
    window: Window
    batch: int
    is_unfinished: bool = False
    suspect: Suspect | None = None

    def at(self, window: Window) -> Cursor:
        return replace(self, window=window)


@dataclass(frozen=True)
class Start:
    """Locked cursors, and the state of the database when their batch begins.

    Attributes:
        cursors: at least one.
        snapshot: the visible transactions.
        xid: the batch's transaction.
        number: the last event number, including running transactions.
        has_parked: whether any event is parked and others may have to wait behind it.
        session: connection settings that must not change.
    """

    cursors: Sequence[Cursor]
    snapshot: Snapshot
    xid: int
    number: int
    has_parked: bool
    session: Sequence[str]

    def opened(self, floor: int = 0) -> list[Cursor]:
        """The cursors, each with its window open up to the snapshot.

        Args:
            floor: a bound for the event numbers of transactions from the snapshot's xmax on.
        """
        return [one.at(one.window.opened(self.snapshot, floor)) for one in self.cursors]


def read_start(rows: Sequence[tuple[Any, ...]]) -> Start:
    """The start from the rows of the query ``claim``, at least one."""
    _, _, snapshot, xid, number, has_parked, session = rows[0][:7]
    cursors = [_read_cursor(row[7:]) for row in rows]
    return Start(cursors, Snapshot.parse(snapshot).without(xid), xid, number, has_parked, session)


def _read_cursor(row: tuple[Any, ...]) -> Cursor:
    queue, atomic, bucket, lower, floor, running, upper, upper_floor, position, skip = row[:10]
    batch, started, *suspect = row[10:]
    known = json.loads(running) if isinstance(running, str) else running
    window = Window(
        Snapshot.parse(lower),
        floor,
        {int(xid): number for xid, number in known.items()},
        Snapshot.parse(upper) if upper else None,
        upper_floor or 0,
        position,
        tuple(skip),
    )
    is_unfinished = started is not None and started > batch
    return Cursor(
        queue,
        atomic,
        bucket,
        window,
        batch=max(batch, started or 0) + 1,
        is_unfinished=is_unfinished,
        suspect=Suspect(*suspect) if is_unfinished and suspect[0] else None,
    )
