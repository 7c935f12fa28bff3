"""Rows of several tables (multi-table inheritance): the events say what the row was.

An event holds the whole row. It is certain of the part in its own table, whose row was locked. The
other parts are what the writer's statement could see, and another transaction may have changed
them in the meantime: two transactions that change a parent's and a child's part at once both show
a row that never existed. Locks in the capture would deadlock, so this is put right when the events
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
    """The parts of a row after the last event that is dealt with, as far as they are known.

    Args:
        rest: the first events of each part and operation that are left, by number.
        stored: the row that is stored; empty if there is none.
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
    # With an insertion another row begins.
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
    """The first event of a part, among those of one transaction by number."""
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
    """What is wrong in the images of one row's events, by number and side: the right parts.

    Goes back from the last event: ``after`` is the row after it.
    """
    found: dict[int, dict[str, list[tuple[Part, State]]]] = {}
    for number, event in reversed(list(enumerate(events))):
        certain = _certain(parts, event)
        if certain is None:
            # A table that the model has no more: there is nothing to compare with.
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
    """The parts that an event is certain of, each with the events that say so."""
    found: dict[Part, list[Event]] = defaultdict(list)
    for member in members(event):
        part = parts.of(member)
        if part is None:
            return None
        found[part].append(member)
    return found


def _before_deletion(parts: Parts, events: Sequence[Event], images: Images) -> States:
    """The parts of a row that its deletion, the last of the events, shows as they were before.

    Its parents may be gone, or live on without the row, so that the stored rows say nothing. But
    its image may show a part from which one of the events before has led on.
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
    """Whether two states differ: a NaN, wherever it lies, is a NaN."""
    return one != other and repr(one) != repr(other)
