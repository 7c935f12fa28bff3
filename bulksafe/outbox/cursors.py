"""The position of each queue in the events of each bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from bulksafe.outbox.windows import Snapshot, Window

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


def read_cursor(row: tuple[Any, ...]) -> Cursor:
    """A cursor from a row of the query ``claim``."""
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
