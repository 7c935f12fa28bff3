"""Reconstructs rows of several tables (multi-table inheritance) from their events.

An event holds the whole row. Only the part in its own table is certain, since that row was locked.
The other parts are a snapshot of the writing statement, and a concurrent transaction may have
changed them: two transactions that change a parent's and a child's part at once both show a row
that never existed. Locks in the capture would deadlock, so the images are corrected when the events
are read.

The events of one part are in the order of its changes. So the state of another part, at the place
of an event, is the one from which the next event of that part starts. Where no such event is left,
it is the stored row: a transaction that changed it has left an event, or has not committed.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bulksafe.outbox.event_order import chained
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.dispatch.images import Images
    from bulksafe.dispatch.parts import Part, Parts, State, States


def members(event: Event) -> Sequence[Event]:
    return event.members or (event,)


def parts_after(
    parts: Parts, rest: Sequence[Event], images: Images | dict[str, Any], stored: States
) -> States:
    """The parts of a row after the last processed event, as far as they are known.

    Args:
        rest: the first remaining events of each part and operation, by number.
        stored: the stored row; empty if there is none.
    """
    if not rest:
        return stored
    own = parts.table.model
    first: dict[tuple[Part, str], Event] = {}
    for part in parts.places:
        for operation in (INSERTED, UPDATED, DELETED):
            members = [e for e in rest if e.operation == operation and parts.of(e) is part]
            if members:
                first[part, operation] = _first_of(parts, part, members, images)
    inserted, deleted = first.get((own, INSERTED)), first.get((own, DELETED))
    # An insertion begins a new row.
    found = {key: e for key, e in first.items() if inserted is None or e.seq < inserted.seq}
    known: States = {} if inserted is not None or deleted is not None else dict(stored)
    for part in parts.places:
        event = found.get((part, UPDATED)) or found.get((own, DELETED))
        if part is own and deleted is not None and event is not None and deleted.seq < event.seq:
            event = deleted
        state = event and parts.state(part, event, "old", images)
        if state:
            known[part] = state
        elif event:
            known.pop(part, None)
    return known


def _first_of(
    parts: Parts, part: Part, members: list[Event], images: Images | dict[str, Any]
) -> Event:
    """The first event of a part; within one transaction, by number."""
    if all(event.depth == 1 for event in members):
        return members[0]
    sides = {
        side: {event.seq: parts.state(part, event, side, images) for event in members}
        for side in ("old", "new")
    }
    old, new = (
        {seq: state and state.values for seq, state in sides[side].items()}
        for side in ("old", "new")
    )
    return chained(members, old, new)[0]


def differences(
    parts: Parts, events: Sequence[Event], images: Images, after: States
) -> dict[int, dict[str, list[tuple[Part, State]]]]:
    """The correct parts for wrong images of one row's events, by number and side.

    Iterates from the last event backwards: ``after`` is the row after it.
    """
    found: dict[int, dict[str, list[tuple[Part, State]]]] = {}
    for number, event in reversed(list(enumerate(events))):
        certain = _certain(parts, event)
        if certain is None:
            # The model no longer has this table: there is nothing to compare with.
            after = {}
            continue
        if event.operation == DELETED:
            after = _before_deletion(parts, events[: number + 1], images) | after
        before: States = {}
        wrong: dict[str, list[tuple[Part, State]]] = defaultdict(list)
        for part in parts.places:
            for side, base in (("old", event.before), ("new", event)):
                imaged = parts.state(part, base, side, images)
                if part in certain:
                    member = certain[part][0 if side == "old" else -1]
                    right = parts.state(part, member, side, images)
                else:
                    right = after.get(part, imaged)
                if imaged is None or right is None:
                    continue
                if _differ(imaged.values, right.values):
                    wrong[side].append((part, right))
                if side == "old":
                    before[part] = right
        if wrong:
            found[event.seq] = dict(wrong)
        after = before
    return found


def _certain(parts: Parts, event: Event) -> dict[Part, list[Event]] | None:
    """The certain parts of an event, each with its source events."""
    found: dict[Part, list[Event]] = defaultdict(list)
    for member in members(event):
        part = parts.of(member)
        if part is None:
            return None
        found[part].append(member)
    return found


def _before_deletion(parts: Parts, events: Sequence[Event], images: Images) -> States:
    """The old parts of a row that its deletion, the last event, shows.

    Its parent rows may be deleted, or still exist without the child, so the stored rows are no
    help. But its image may show a part from which an earlier event continued.
    """
    found: States = {}
    for part in parts.places:
        imaged = parts.state(part, events[-1], "old", images)
        changes = [
            member
            for event in events[:-1]
            for member in members(event)
            if member.operation == UPDATED and parts.of(member) is part
        ]
        if imaged is None or not changes:
            continue
        befores = [parts.state(part, change, "old", images) for change in changes]
        last = parts.state(part, changes[-1], "new", images)
        if last and any(one and not _differ(one.values, imaged.values) for one in befores):
            found[part] = last
    return found


def _differ(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two states differ: NaN equals NaN here, at any depth."""
    return one != other and repr(one) != repr(other)
