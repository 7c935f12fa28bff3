"""Events as stored in the outbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INSERTED, UPDATED, DELETED = "I", "U", "D"

#: A marker among an event's conditions: it is for in-transaction receivers that did not run.
HANDED_OVER = "otherwise"

#: The labels that encode an event's ``Replay`` in place of conditions.
_REPLAY_LABELS = ("replay:", "queue:", "atomic:")


@dataclass(frozen=True)
class Replay:
    """The one receiver of an event that ``bulksafe replay`` wrote.

    Attributes:
        receiver: its name.
        queue, atomic: its lane. A listener whose code lacks the receiver parks the event only in
        this lane, not in every lane.
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


@dataclass(slots=True)
class Event:
    """One change of one row.

    Treat it as immutable. It is not a frozen dataclass, which takes three times as long to create.

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
        key: the row's primary key as text; the old key if an update changed it.
        size: bytes of its images on disk, compressed; 0 for a parked one.
        matched: the ids of the conditions that it met; None if there are no conditions.
        context: the ``bulksafe.context`` of the write.
        first: the event with the row's state before the change, if several events are one change.
        parked: the id among the parked events, for one of them.
        attempts: how often it has failed.
        members: the events of the change, if there are several.
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
        """Identifies the row; the events of a row are delivered in order."""
        return self.source, self.key

    @property
    def number(self) -> int:
        """Identifies it among those whose images are read together.

        Not ``seq`` for a parked one: an event that is parked for several receivers has the old
        image of an earlier event where changes were joined, and its own for the others.
        """
        return self.seq if self.parked is None else self.parked

    @property
    def is_handed_over(self) -> bool:
        """Whether it is for in-transaction receivers that did not run."""
        return self.matched is not None and HANDED_OVER in self.matched

    @property
    def replay(self) -> Replay | None:
        """Its one receiver, if it is replayed."""
        return Replay.of(self.matched) if self.matched else None

    @property
    def before(self) -> Event:
        """The event whose old image is the row before this change."""
        return self.first or self
