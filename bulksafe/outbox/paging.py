"""What a reader of the outbox takes at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.outbox.event_order import is_shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.outbox.cursors import Cursor
    from bulksafe.outbox.events import Event
    from bulksafe.outbox.store import Store


#: How large the images of one cursor's page may be, compressed. They are up to a hundred times as
#: large in memory, and four cursors are read at once.
_MOST_BYTES = 2 * 1024 * 1024


def next_events(
    store: Store, cursors: Sequence[Cursor], limit: int
) -> tuple[list[Event], list[Cursor]]:
    """The next events of each cursor, and the cursors as they are when these are dealt with.

    Args:
        limit: how many of each at most; fewer where their images are large.
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
    """The first of the events, as many as a process can hold, and one at least.

    Otherwise rows of megabytes would end each process that reads a page of them.
    """
    total = 0
    for number, event in enumerate(events):
        total += event.size
        if total > _MOST_BYTES and number:
            return events[:number]
    return events


def _beyond(store: Store, cursor: Cursor, shared: Sequence[Event], position: int) -> list[Event]:
    """What has to be dealt with along with ``shared``, though it lies beyond the page.

    That is the rest of their transactions. Where a row lies in several tables, another transaction
    may have written in between, and comes first then.
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
