"""Reads the outbox page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.outbox.event_order import is_shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.outbox.cursors import Cursor
    from bulksafe.outbox.events import Event
    from bulksafe.outbox.store import Store


#: The maximum compressed size of the images in one cursor's page. In memory they are up to a
#: hundred times as large, and four cursors are read at once.
_MOST_BYTES = 2 * 1024 * 1024


def next_events(
    store: Store, cursors: Sequence[Cursor], limit: int
) -> tuple[list[Event], list[Cursor]]:
    """The next events of each cursor, and the cursor positions after these events.

    Args:
        limit: the maximum number of events of each cursor; fewer if their images are large.
    """
    fetched = store.fetch(cursors, limit)
    events: list[Event] = []
    moved = []
    for cursor in cursors:
        listed = [event for event in fetched if event.bucket == cursor.bucket]
        found = _that_fit(listed)
        window = cursor.window
        skipped = set(window.skip)
        fresh = [event for event in found if event.seq not in skipped]
        if len(found) == len(listed) < limit:
            moved.append(cursor.at(window.closed()))
        else:
            position = found[-1].seq
            shared = [event for event in fresh if is_shared(event)]
            beyond = _beyond(store, cursor, shared, position)
            beyond = [event for event in beyond if event.seq not in skipped]
            fresh += beyond
            moved.append(cursor.at(window.moved(position, [event.seq for event in beyond])))
        events += fresh
    return events, moved


def _that_fit(events: list[Event]) -> list[Event]:
    """The first events that fit into memory, at least one.

    Otherwise a page of very large rows would exhaust the memory of every process that reads it.
    """
    total = 0
    for number, event in enumerate(events):
        total += event.size
        if total > _MOST_BYTES and number:
            return events[:number]
    return events


def _beyond(store: Store, cursor: Cursor, shared: Sequence[Event], position: int) -> list[Event]:
    """The events beyond the page that must be processed together with ``shared``.

    These are the rest of their transactions. For rows in several tables, a concurrent transaction
    may have written in between, and then comes first.
    """
    found: dict[int, Event] = {}
    missing = list(shared)
    while missing:
        rest = [e for e in store.fetch_beyond(missing, position) if e.seq not in found]
        found |= {event.seq: event for event in rest}
        parts = [event for event in rest if event.part is not None]
        between = store.fetch_between(cursor, parts, position) if parts else []
        missing = [event for event in between if event.seq not in found]
        found |= {event.seq: event for event in missing}
    return sorted(found.values(), key=lambda event: event.seq)
