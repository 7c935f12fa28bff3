"""How far each queue has come, and which calls a process can make."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bulksafe.outbox.windows import Snapshot, Window

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bulksafe.declarations.options import Lane

#: How many buckets the keys of rows fall into; ``capture_rows.sql`` has it as ``& 15``.
BUCKETS = 16


@dataclass(frozen=True)
class Suspect:
    """The call in which a process died that had a batch.

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
    """How far a queue has come with the rows of one bucket.

    Attributes:
        queue: the queue's name.
        atomic: whether it is for the receivers that run in a transaction, or for the others.
        bucket: the bucket.
        window: what was and what is to be dealt with.
        batch: the number of the batch that begins now.
        is_unfinished: whether the batch before it was started and not finished: its process died.
        suspect: the call that it died in, where that is known.
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
class Known:
    """What this code can call: other calls are left to listeners that have their code.

    Attributes:
        pairs: the names of its receivers, each with the oid of a table that it is for.
        lanes: the lanes that it serves, each with the oids of the tables of its receivers.
    """

    pairs: Sequence[tuple[str, int]] = ()
    lanes: Mapping[Lane, Collection[int]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "receivers": [receiver for receiver, _ in self.pairs],
            "sources": [source for _, source in self.pairs],
        }

    @property
    def lane_parameters(self) -> dict[str, Any]:
        return {
            "lane_queues": [queue for queue, _ in self.lanes],
            "lane_atomics": [atomic for _, atomic in self.lanes],
            "lane_sources": [f"{{{','.join(map(str, oids))}}}" for oids in self.lanes.values()],
        }


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
