"""Orders taken changes, and combines those of one change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from bulksafe import call_stack
from bulksafe.outbox import event_order
from bulksafe.outbox.events import DELETED, INSERTED, Event
from bulksafe.writer.changes import InlineChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bulksafe.call_stack import Calls
    from bulksafe.writer.taking import Taken


def combined(taken: Sequence[Taken], using: str, prefix: str) -> list[InlineChange]:
    """Combine changes that belong together, and order those of each row.

    Args:
        prefix: the prefix of event ids in this database.
    """
    by_seq = {one.event.seq: one for one in taken}
    events = [one.event for one in taken]
    if any(map(event_order.is_shared, events)):
        events = event_order.in_order(events, lambda members: _chained(members, by_seq))
    inside = call_stack.calls()
    return [_change(event, by_seq, using, prefix, inside) for event in events]


def in_key_order(changes: list[InlineChange]) -> list[InlineChange]:
    """The updated or deleted rows of one statement in the order of their keys.

    PostgreSQL scans a table in any order; a loop over the queryset uses key order. Changes of
    several tables, or several changes of one row, keep the order of the statement.
    """
    kinds = {(change.event.source, change.event.operation) for change in changes}
    if len(kinds) != 1 or changes[0].created or not _are_of_different_rows(changes):
        return changes
    return sorted_by_key(changes, lambda change: change.key(old=True))


def in_order_of_locks(changes: Sequence[InlineChange]) -> Sequence[InlineChange]:
    """The changes in statement order, in which every UPDATE of these rows locks them."""
    if not _are_of_different_rows(changes):
        return changes
    return sorted(changes, key=lambda change: change.event.seq)


def _are_of_different_rows(changes: Sequence[InlineChange]) -> bool:
    return len({change.row for change in changes}) == len(changes)


_Row = TypeVar("_Row")


def sorted_by_key(rows: Iterable[_Row], key: Callable[[_Row], Any]) -> list[_Row]:
    """Sort by keys, unless Python cannot compare them."""
    listed = list(rows)
    try:
        return sorted(listed, key=key)
    except TypeError:
        return listed


def _chained(members: list[Event], by_seq: Mapping[int, Taken]) -> list[Event]:
    def values(event: Event, side: str) -> object:
        image = getattr(by_seq[event.seq], side)
        return None if image is None else image.values

    return event_order.chained(
        members,
        {event.seq: values(event, "old") for event in members},
        {event.seq: values(event, "new") for event in members},
    )


def _change(
    event: Event,
    by_seq: Mapping[int, Taken],
    using: str,
    prefix: str,
    inside: Calls,
) -> InlineChange:
    last, first = by_seq[event.seq], by_seq[event.before.seq]
    return InlineChange(
        event,
        last.model,
        None if event.operation == INSERTED else first.old,
        None if event.operation == DELETED else last.new,
        using=using,
        event_id=f"{prefix}-{event.seq}",
        met=last.met | first.met,
        calls=inside,
    )
