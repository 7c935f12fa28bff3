"""What a reader of the outbox takes at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.outbox.events import is_shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.outbox.events import Event
    from bulksafe.outbox.store import Cursor, Store


def next_events(
    store: Store, cursors: Sequence[Cursor], limit: int
) -> tuple[list[Event], list[Cursor]]:
    """The next events of each cursor, and the cursors as they are when these are dealt with."""
    fetched = store.fetch(cursors, limit)
    events: list[Event] = []
    moved = []
    for cursor in cursors:
        found = [event for event in fetched if event.bucket == cursor.bucket]
        window = cursor.window
        skipped = set(window.skip)
        fresh = [event for event in found if event.seq not in skipped]
        if len(found) < limit:
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
