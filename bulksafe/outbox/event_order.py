"""Restores the order of changes, and merges events of the same change."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from bulksafe.outbox.events import DELETED, INSERTED, UPDATED, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence


def is_shared(event: Event) -> bool:
    """Whether other events of its transaction may belong to the same change or precede it."""
    return event.part is not None or event.depth > 1


def in_order(events: Iterable[Event], chain: Callable[[list[Event]], list[Event]]) -> list[Event]:
    """The changes of one bucket; those of each row in the order of its changes.

    Usually that is the order of their numbers. But if an ``AFTER ROW`` trigger writes to the row
    again, its change is captured first, and multi-table inheritance writes a row table by table.

    Args:
        events: of one bucket, by number, with all events of a row and a transaction together.
        chain: puts the events of one row and one transaction into the order old → new.
    """
    listed = list(events)
    shared: dict[Hashable, list[Event]] = {}
    for event in listed:
        shared.setdefault(_chain_of(event), []).append(event)
    contended = _contended(listed)
    done: list[Event] = []
    for event in listed:
        members = shared[_chain_of(event)]
        if len(members) == 1 or not any(map(is_shared, members)):
            done.append(event)
        elif event is members[-1 if event.row in contended else 0]:
            ordered = chain(members) if any(e.depth > 1 for e in members) else members
            done += merged(ordered)
    return done


def _contended(events: Iterable[Event]) -> set[tuple[int, str]]:
    """The rows of several tables that were changed by several transactions.

    Each table's part of such a row has a lock of its own, so one transaction may write between two
    writes of a different one. Of two transactions that changed the same part, the later one had to
    wait for the other, so its last number is higher.
    """
    writers: dict[tuple[int, str], int] = {}
    return {
        event.row
        for event in events
        if event.part is not None and writers.setdefault(event.row, event.xid) != event.xid
    }


def _chain_of(event: Event) -> Hashable:
    """The key of the chain that an event belongs to.

    A change for receivers of both kinds has two events.
    """
    return event.xid, event.row, event.is_handed_over


def merged(events: Sequence[Event]) -> list[Event]:
    """The events of one row and one transaction, with events of the same change merged.

    A ``save()`` of a model with parents writes one table after the other: a change contains at most
    one event of each. A row that moves to a different partition is a deletion and an insertion.
    """
    changes: list[list[Event]] = []
    for event in events:
        if changes and _belongs(changes[-1], event):
            changes[-1].append(event)
        else:
            changes.append([event])
    return [_as_one(change) for change in changes]


def _belongs(change: list[Event], event: Event) -> bool:
    if event.part is None or any(other.part is None for other in change):
        return False
    if change[-1].operation == DELETED and event.operation == INSERTED:
        return change[-1].part != event.part
    return (
        all(other.operation == UPDATED for other in (*change, event))
        and event.depth == change[-1].depth
        and all(other.part != event.part for other in change)
    )


def _as_one(change: list[Event]) -> Event:
    if len(change) == 1:
        return change[0]
    first, last = change[0], change[-1]
    matched = [m for event in change for m in event.matched or ()]
    return replace(
        last,
        operation=UPDATED,
        first=first.before,
        members=tuple(change),
        matched=None if last.matched is None else list(dict.fromkeys(matched)),
    )


def chained(
    events: list[Event], old: Mapping[int, object], new: Mapping[int, object]
) -> list[Event]:
    """The events of one row and one transaction in the order old → new.

    Each event leads from one state of the row to another: this finds a path through all of them, an
    Eulerian path. (Hierholzer, "Über die Möglichkeit, einen Linienzug ohne Wiederholung und ohne
    Unterbrechung zu umfahren", 1873.)

    Args:
        events: by number.
        old, new: the row's state before and after each event, by its number; None where there is
            no row.

    Returns:
        An order in which each event begins where the one before it ended, with low numbers first if
        there are several; the given order if there is none.
    """
    # As text: states may contain lists, and a NaN equals no other NaN.
    steps = [(event, repr(old[event.seq]), repr(new[event.seq])) for event in events]
    leading: dict[str, list[tuple[Event, str]]] = {}
    surplus: Counter[str] = Counter()
    for event, before, after in reversed(steps):
        leading.setdefault(before, []).append((event, after))
        surplus[before] += 1
        surplus[after] -= 1
    # A round trip may begin anywhere. The change that fired a trigger precedes the changes of the
    # trigger.
    first = min(steps, key=lambda step: (step[0].depth, step[0].seq))
    start = next((state for state, number in surplus.items() if number > 0), first[1])
    found = _path(start, leading)
    is_whole = len(found) == len(steps)
    if is_whole and all(one[2] == other[1] for one, other in pairwise(found)):
        return [event for event, _, _ in found]
    return events


def chained_by_part(
    events: list[Event], old: Mapping[int, object], new: Mapping[int, object]
) -> list[Event]:
    """The same for a row of several tables: the events of each table in the order old → new.

    Only the part in an event's own table is certain.

    Args:
        old, new: the state of the event's own part.
    """
    parts: dict[int | None, list[Event]] = {}
    for event in events:
        parts.setdefault(event.part, []).append(event)
    ordered = {part: iter(chained(members, old, new)) for part, members in parts.items()}
    return _insertions_first([next(ordered[event.part]) for event in events])


def _insertions_first(events: Iterable[Event]) -> list[Event]:
    """Move insertions first: the number of a trigger's change to a different part may be lower."""
    done: list[Event] = []
    start = 0
    for event in events:
        done.insert(start if event.operation == INSERTED else len(done), event)
        if event.operation == DELETED:
            start = len(done)
    return done


def _path(start: str, leading: dict[str, list[tuple[Event, str]]]) -> list[tuple[Event, str, str]]:
    """Walk until no edge is left, then insert the omitted detours, starting from the end.

    Args:
        leading: the events that begin at each state, the first one last; used up.
    """
    found: list[tuple[Event, str, str]] = []
    walked: list[tuple[Event, str, str]] = []
    state = start
    while True:
        if leading.get(state):
            event, after = leading[state].pop()
            walked.append((event, state, after))
            state = after
        elif walked:
            step = walked.pop()
            found.append(step)
            state = step[1]
        else:
            return found[::-1]


def by_bucket(events: Iterable[Event]) -> Iterator[tuple[int, list[Event]]]:
    """The events of each bucket; they come sorted by it."""
    for bucket, group in groupby(events, key=lambda event: event.bucket):
        yield bucket, list(group)
