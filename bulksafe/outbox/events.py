"""Events as the outbox holds them, and in the order in which rows were changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

INSERTED, UPDATED, DELETED = "I", "U", "D"

#: Among the conditions that an event met: it was meant for receivers in the writer's transaction,
#: which did not run there.
HANDED_OVER = "otherwise"

#: The labels under which an event carries its ``Replay``, in place of conditions.
_REPLAY_LABELS = ("replay:", "queue:", "atomic:")


@dataclass(frozen=True)
class Replay:
    """The one receiver of an event that ``bulksafe replay`` wrote.

    Attributes:
        receiver: its name.
        queue, atomic: its lane. A listener whose code lacks the receiver keeps the event once, in
            this lane, instead of once in each.
    """

    receiver: str
    queue: str
    atomic: bool

    @property
    def matched(self) -> list[str]:
        """The event's ``matched``."""
        values = self.receiver, self.queue, str(self.atomic)
        return [label + value for label, value in zip(_REPLAY_LABELS, values, strict=True)]

    @classmethod
    def of(cls, matched: Sequence[str]) -> Replay | None:
        """Read ``matched``; None if it lists conditions."""
        if not matched or not matched[0].startswith(_REPLAY_LABELS[0]):
            return None
        receiver, queue, atomic = (
            text.removeprefix(label) for label, text in zip(_REPLAY_LABELS, matched, strict=True)
        )
        return cls(receiver, queue, atomic == str(True))


@dataclass
class Event:
    """One change of one row.

    Nobody changes one. It is not frozen, because Python takes three times as long to make what is.

    Attributes:
        slot: the slot of the outbox that holds it, or -1 for a parked one.
        seq: its number; of several changes of one row, the later one has the higher.
        xid: the transaction that wrote it.
        bucket: the hash of its row's key.
        at: when it was captured, as ``time.time()``.
        source: the oid of the table of the row's model.
        part: the oid of the partition, or of the table of multi-table inheritance, if any.
        operation: ``"I"``, ``"U"`` or ``"D"``.
        depth: 1, or more for changes that triggers made.
        key: the row's primary key as text; the old one where an update changed it.
        size: bytes of its images on disk, compressed; 0 for a parked one.
        matched: the ids of the conditions that it met; None where nobody asks.
        context: what ``bulksafe.context`` had for it.
        first: the event that has the row's state before the change, where several are one change.
        parked: the id among the parked events, for one of them.
        attempts: how often it has failed.
        members: the events that are one change, where there are several.
        amended: columns in which its row differs from its images, as JSON by side: see
            ``bulksafe.dispatch.part_history``.
    """

    slot: int
    seq: int
    xid: int
    bucket: int
    at: float
    source: int
    part: int | None
    operation: str
    depth: int
    key: str
    size: int = 0
    matched: Sequence[str] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    first: Event | None = None
    parked: int | None = None
    attempts: int = 0
    members: Sequence[Event] = ()
    amended: Mapping[str, str] | None = None

    @property
    def row(self) -> tuple[int, str]:
        """Tells rows apart: the events of one are dealt with in order."""
        return self.source, self.key

    @property
    def is_handed_over(self) -> bool:
        """Whether it is for the receivers of a writer's transaction that were not run there."""
        return self.matched is not None and HANDED_OVER in self.matched

    @property
    def replay(self) -> Replay | None:
        """Its one receiver, if it is replayed."""
        return Replay.of(self.matched) if self.matched else None

    @property
    def before(self) -> Event:
        """The event whose old image is the row before this change."""
        return self.first or self


def is_shared(event: Event) -> bool:
    """Whether other events of its transaction may belong to the same change, or before it."""
    return event.part is not None or event.depth > 1


def in_order(events: Iterable[Event], chain: Callable[[list[Event]], list[Event]]) -> list[Event]:
    """The changes of one bucket in the order in which each row was changed.

    Mostly that is the order of their numbers. An ``AFTER ROW`` trigger that writes to the row again
    has its change captured first, and a row of multi-table inheritance is written table by table.

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
    """The rows of several tables that several transactions have changed.

    Each table's part of such a row has a lock of its own, so that one transaction may write in
    between two writes of another. Of two that changed the same part, the later one had to wait for
    the end of the other: its last number is the higher one.
    """
    writers: dict[tuple[int, str], int] = {}
    return {
        event.row
        for event in events
        if event.part is not None and writers.setdefault(event.row, event.xid) != event.xid
    }


def _chain_of(event: Event) -> Hashable:
    """What the events have in common that lead from one state of a row to the next.

    A change that goes to receivers of both kinds has two events.
    """
    return event.xid, event.row, event.is_handed_over


def merged(events: Sequence[Event]) -> list[Event]:
    """The events of one row and one transaction, those that are one change made into one.

    A ``save()`` of a model with parents writes one table after the other: each of them at most once
    belongs to one change. A row that moves to another partition is deleted here and inserted there.
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

    Each event leads from one state of the row to another: what is looked for is a way through all
    of them, an Eulerian path. (Hierholzer, "Über die Möglichkeit, einen Linienzug ohne Wiederholung
    und ohne Unterbrechung zu umfahren", 1873.)

    Args:
        events: by number.
        old, new: the row's state before and after each event, by its number; None where there is
            no row.

    Returns:
        An order in which each event begins where the one before it ended, with low numbers first
        where there are several; the given one if there is none.
    """
    # As text: states may hold lists, and a NaN that equals no other.
    steps = [(event, repr(old[event.seq]), repr(new[event.seq])) for event in events]
    leading: dict[str, list[tuple[Event, str]]] = {}
    surplus: Counter[str] = Counter()
    for event, before, after in reversed(steps):
        leading.setdefault(before, []).append((event, after))
        surplus[before] += 1
        surplus[after] -= 1
    # A round trip may begin anywhere. What fired a trigger comes before what the trigger did.
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

    An event says for certain only what became of its own table's part of the row.

    Args:
        old, new: the state of the event's own part.
    """
    parts: dict[int | None, list[Event]] = {}
    for event in events:
        parts.setdefault(event.part, []).append(event)
    ordered = {part: iter(chained(members, old, new)) for part, members in parts.items()}
    return _insertions_first([next(ordered[event.part]) for event in events])


def _insertions_first(events: Iterable[Event]) -> list[Event]:
    """A row begins with its insertion, though what a trigger does to another part comes first."""
    done: list[Event] = []
    start = 0
    for event in events:
        done.insert(start if event.operation == INSERTED else len(done), event)
        if event.operation == DELETED:
            start = len(done)
    return done


def _path(start: str, leading: dict[str, list[tuple[Event, str]]]) -> list[tuple[Event, str, str]]:
    """Walk until there is no way on, then insert the detours that were left out, from the end on.

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
