"""The outbox, the cursors and the parked events in the database."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.db import connections

from bulksafe.outbox.events import Event
from bulksafe.outbox.queries import query
from bulksafe.outbox.windows import Snapshot, Window

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bulksafe.declarations.receivers import Lane

#: How many buckets the keys of rows fall into; ``capture_rows.sql`` has it as ``& 15``.
BUCKETS = 16


@dataclass(frozen=True)
class Cursor:
    """How far a queue has come with the rows of one bucket.

    Attributes:
        queue: the queue's name.
        atomic: whether it is for the receivers that run in a transaction, or for the others.
        bucket: the bucket.
        window: what was and what is to be dealt with.
    """

    queue: str
    atomic: bool
    bucket: int
    window: Window

    def at(self, window: Window) -> Cursor:
        return replace(self, window=window)


@dataclass(frozen=True)
class Start:
    """The state of things when a batch begins.

    Attributes:
        snapshot: what is visible.
        xid: the batch's transaction.
        number: the last number that an event was given, also in a transaction that still runs.
        has_parked: whether any event is parked and others may have to wait behind it.
        session: settings of the connection that have to stay as they are.
    """

    snapshot: Snapshot
    xid: int
    number: int
    has_parked: bool
    session: Sequence[str]


class Store:
    """Runs the queries on the connection ``using``; transactions are the caller's."""

    def __init__(self, using: str) -> None:
        self.using = using

    def rows(self, name: str, parameters: Any = None, **parts: str) -> list[tuple[Any, ...]]:
        """The rows that the query ``name`` returns."""
        text = query(name)
        for part, value in parts.items():
            text = text.replace(f"{{{part}}}", value)
        with connections[self.using].cursor() as cursor:
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description is not None else []

    def prefix(self) -> str:
        """What the ids of this database's events begin with."""
        return str(self.rows("prefix")[0][0])

    # Cursors.

    def start(self) -> Start:
        """What there is to know when cursors are locked."""
        ((snapshot, *rest),) = self.rows("start", session=query("session"))
        return Start(Snapshot.parse(snapshot), *rest)

    def claim(
        self, queues: Collection[str], atomic: bool, limit: int, stale: float | None = None
    ) -> list[Cursor]:
        """Lock up to ``limit`` cursors that have work, least recently served first.

        Args:
            stale: also those without work that nobody has looked at for so many seconds.
        """
        parameters = {"queues": list(queues), "atomic": atomic, "limit": limit, "stale": stale}
        rows = self.rows("claim", parameters, work=query("work"))
        return [_cursor(row) for row in rows]

    def has_work(self, queues: Collection[str], atomic: bool) -> bool:
        """Whether there is something to claim."""
        parameters = {"queues": list(queues), "atomic": atomic}
        return bool(self.rows("has_work", parameters, work=query("work"))[0][0])

    def session(self) -> Sequence[str]:
        """The connection's settings, as ``Start`` has them."""
        ((found,),) = self.rows("session_now", session=query("session"))
        return list(found)

    def advance(self, cursors: Sequence[Cursor]) -> Sequence[str] | None:
        """Store the cursors' windows.

        Returns:
            the connection's settings by then, which cost no query of their own.
        """
        if not cursors:
            return None
        windows = [cursor.window for cursor in cursors]
        rows = self.rows(
            "advance",
            {
                "atomic": cursors[0].atomic,
                "buckets": [cursor.bucket for cursor in cursors],
                "queues": [cursor.queue for cursor in cursors],
                "lowers": [str(window.lower) for window in windows],
                "floors": [window.floor for window in windows],
                "runnings": [json.dumps(dict(window.running)) for window in windows],
                "uppers": [window.upper and str(window.upper) for window in windows],
                "upper_floors": [window.upper_floor for window in windows],
                "positions": [window.position for window in windows],
                "skips": [f"{{{','.join(map(str, window.skip))}}}" for window in windows],
            },
            session=query("session"),
        )
        return list(rows[0][0]) if rows else None

    def create_cursors(self, lanes: Iterable[Lane]) -> None:
        """Let the lanes begin now unless they have begun already."""
        listed = sorted(set(lanes))
        self.rows(
            "create_cursors",
            {
                "queues": [queue for queue, _ in listed],
                "atomics": [atomic for _, atomic in listed],
            },
        )

    def lanes(self) -> set[Lane]:
        """The lanes that have cursors."""
        return {(queue, atomic) for queue, atomic in self.rows("lanes")}

    # Events.

    def fetch(self, cursors: Sequence[Cursor], limit: int) -> list[Event]:
        """Up to ``limit`` events of each cursor's open window."""
        windows = [cursor.window for cursor in cursors]
        return self._events(
            "fetch",
            {
                "buckets": [cursor.bucket for cursor in cursors],
                "starts": [window.start for window in windows],
                "lowers": [str(window.lower) for window in windows],
                "uppers": [str(window.upper) for window in windows],
                "limit": limit,
            },
        )

    def fetch_beyond(self, events: Sequence[Event], position: int) -> list[Event]:
        """The events beyond ``position`` of the same rows and transactions."""
        groups = {(event.xid, event.row): event for event in events}.values()
        return self._events(
            "fetch_beyond",
            {
                "buckets": [event.bucket for event in groups],
                "positions": [position for _ in groups],
                "xids": [str(event.xid) for event in groups],
                "sources": [event.source for event in groups],
                "keys": [event.key for event in groups],
            },
        )

    def fetch_between(self, cursor: Cursor, events: Sequence[Event], position: int) -> list[Event]:
        """What other transactions of the open window did to the rows of ``events`` before these.

        Args:
            position: only events beyond this number.
        """
        window = cursor.window
        lasts: dict[tuple[int, str], int] = {}
        for event in events:
            lasts[event.row] = max(event.seq, lasts.get(event.row, 0))
        return self._events(
            "fetch_between",
            {
                "bucket": cursor.bucket,
                "position": position,
                "lower": str(window.lower),
                "upper": str(window.upper),
                "sources": [source for source, _ in lasts],
                "keys": [key for _, key in lasts],
                "lasts": list(lasts.values()),
            },
        )

    def fetch_rest(self, cursors: Sequence[Cursor], events: Sequence[Event]) -> list[Event]:
        """The first events of some rows that the cursors have still to deal with.

        Args:
            cursors: as they are when ``events`` are dealt with.
            events: of the rows; each row's bucket has a cursor.

        Returns:
            the first of each row, part and operation, with all that its transaction did of the
            same, by number.
        """
        windows = {cursor.bucket: cursor.window for cursor in cursors}
        rows = {event.row: windows[event.bucket] for event in events if event.bucket in windows}
        buckets = {event.row: event.bucket for event in events}
        if not rows:
            return []
        return self._events(
            "fetch_rest",
            {
                "buckets": [buckets[row] for row in rows],
                "floors": [window.floor_of_rest for window in rows.values()],
                "lowers": [str(window.lower) for window in rows.values()],
                "uppers": [window.upper and str(window.upper) for window in rows.values()],
                "positions": [window.position for window in rows.values()],
                "sources": [source for source, _ in rows],
                "keys": [key for _, key in rows],
                "skips": [number for window in windows.values() for number in window.skip],
            },
        )

    def own_events(self, after: int) -> list[Event]:
        """What the present transaction wrote after the number ``after``."""
        return self._events("own_events", {"after": after})

    def _events(self, name: str, parameters: dict[str, Any]) -> list[Event]:
        return [_event(row) for row in self.rows(name, parameters, event=query("event"))]


def _event(row: tuple[Any, ...]) -> Event:
    columns, context = row[:-1], row[-1]
    return Event(*(*columns, json.loads(context) if context else {}))


def _cursor(row: tuple[Any, ...]) -> Cursor:
    queue, atomic, bucket, lower, floor, running, upper, upper_floor, position, skip = row
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
    return Cursor(queue, atomic, bucket, window)
