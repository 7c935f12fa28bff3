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
            beyond = store.fetch_beyond(shared, position) if shared else []
            beyond = [event for event in beyond if event.seq not in skipped]
            fresh += beyond
            moved.append(cursor.at(window.moved(position, [event.seq for event in beyond])))
        events += fresh
    return events, moved
