"""The queries of the outbox, its cursors and its parked events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.utils.functional import cached_property

from bulksafe.outbox.contexts import read_context
from bulksafe.outbox.cursors import read_start
from bulksafe.outbox.events import Event
from bulksafe.outbox.kept_plans import KeptPlans
from bulksafe.outbox.queries import query

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from bulksafe.declarations.options import Lane
    from bulksafe.outbox.cursors import Cursor, Start
    from bulksafe.outbox.known import Known


class Store:
    """Runs the queries on the connection ``using``; the caller manages transactions.

    Args:
        using: the database.
        idle: idle limit in seconds of a worker's transaction; 0 for no limit.
    """

    def __init__(self, using: str, idle: float = 0.0) -> None:
        self.using = using
        self._idle = idle
        self._plans = KeptPlans(using)
        self._number = 0

    def rows(
        self, name: str, parameters: Mapping[str, Any] | None = None, **parts: str
    ) -> list[tuple[Any, ...]]:
        """The rows that the query ``name`` returns."""
        with connections[self.using].cursor() as cursor:
            cursor.execute(_text(name, parts), parameters)
            return cursor.fetchall() if cursor.description is not None else []

    def poll(self, name: str, parameters: Mapping[str, Any], **parts: str) -> list[tuple[Any, ...]]:
        """The same for a query that is run over and over: its plan may be kept."""
        return self._plans.rows(_text(name, parts), parameters, self._number)

    @cached_property
    def unlimited(self) -> str:
        """SQL that disables the role's timeouts in the open transaction."""
        connection: Any = connections[self.using]
        has_transaction_timeout = connection.pg_version >= 170000
        text = query("unlimited_from_17_on" if has_transaction_timeout else "unlimited_until_16")
        return text.replace("{idle}", f"{self._idle * 1000:.0f}")

    def prefix(self) -> str:
        """The prefix of this database's event ids."""
        return str(self.rows("prefix")[0][0])

    # Cursors.

    def claim(
        self, known: Known, *, atomic: bool, limit: int, stale: float | None = None
    ) -> Start | None:
        """Lock up to ``limit`` cursors that have work, least recently served first.

        Requires READ COMMITTED: each statement sees the latest commits.

        Args:
            known: cursors of its lanes.
            atomic: only lanes with this value of ``atomic``.
            stale: include cursors without work that no worker has checked for this many seconds.

        Returns:
            the locked cursors; None if there are none.
        """
        parameters = {"atomic": atomic, "limit": limit, "stale": stale, **known.lane_parameters}
        is_current = False
        while not is_current:
            rows = self.poll("claim", parameters, unlimited=self.unlimited)
            # If another worker moved a cursor after this query's snapshot was taken, the snapshot
            # is older than the cursor. The cursors are locked now: the next snapshot is newer.
            is_current = all(current for _, current, *_ in rows)
        if not rows:
            return None
        start = read_start(rows)
        self._number = start.number
        return start

    def ready(
        self, queues: Collection[str], known: Known, idle: Collection[str] | None = None
    ) -> set[str]:
        """The queues that have work.

        Args:
            queues: the same at each call, so that the plan can be kept.
            known: the receivers and tables of this code.
            idle: those of the queues to look at; None for all.
        """
        rows = self.poll("ready", {"queues": sorted(queues), **known.lane_parameters})
        self._number = max((number for *_, number in rows), default=self._number)
        rows = [row for row in rows if idle is None or row[0] in idle]
        found = {queue for queue, has_work, *_ in rows if has_work}
        asked = [queue for queue, has_work, has_due, _ in rows if has_due and not has_work]
        if asked:
            parked = self.rows("ready_parked", {"queues": asked, **known.parameters})
            found |= {queue for (queue,) in parked}
        return found

    def next_due(self, queues: Collection[str]) -> float | None:
        """Seconds until the next retry is due; None if none is scheduled."""
        ((seconds,),) = self.rows("next_due", {"queues": sorted(queues)})
        return None if seconds is None else float(seconds)

    def longest_due(self, queues: Collection[str], known: Known) -> float:
        """Seconds for which the oldest due event has been waiting.

        Args:
            known: the receivers and tables of this code; other events may have no listener.
        """
        parameters = {"queues": sorted(queues), **known.parameters, **known.lane_parameters}
        return float(self.rows("longest_due", parameters)[0][0])

    def session(self) -> Sequence[str]:
        """The connection's settings, in the form of ``Start``."""
        ((found,),) = self.rows("session_now")
        return list(found)

    def advance(self, cursors: Sequence[Cursor]) -> Sequence[str] | None:
        """Store the cursors' windows.

        Returns:
            the current connection settings, at no extra query.
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
                "batches": [cursor.batch for cursor in cursors],
            },
        )
        return list(rows[0][0]) if rows else None

    def create_cursors(self, lanes: Iterable[Lane]) -> None:
        """Create the cursors of new lanes, at the current position."""
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
        """Fetch up to ``limit`` events of each cursor's open window."""
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
        """Earlier events of the same rows by other transactions of the open window.

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
        """The first undelivered events of some rows.

        Args:
            cursors: their positions after ``events``.
            events: events of the rows; each row's bucket has a cursor.

        Returns:
            the first event of each row, part and operation, with the others of its transaction, by
            number.
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
        """The events of the current transaction after the number ``after``."""
        return self._events("own_events", {"after": after})

    def _events(self, name: str, parameters: dict[str, Any]) -> list[Event]:
        return [_event(row) for row in self.rows(name, parameters)]


def _text(name: str, parts: Mapping[str, str]) -> str:
    text = query(name)
    for part, value in parts.items():
        text = text.replace(f"{{{part}}}", value)
    return text


def _event(row: tuple[Any, ...]) -> Event:
    columns, context = row[:-1], row[-1]
    return Event(*(*columns, read_context(context)))
