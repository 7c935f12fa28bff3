"""The position of an outbox reader. Pure arithmetic on snapshots.

PgQ's idea (Skype, 2007): a batch consists of the events that became visible between two snapshots.
Transactions do not commit in the order in which they begin and number their events. So a reader
that relies on the numbers, or on the oldest running transaction alone, loses or swaps events. The
difference of two snapshots does neither.

The numbers of the events (``seq``) only narrow the search: a bound is kept for the transactions
from each snapshot's xmax on (``floor``), and for each that was running then (``running``). A
snapshot's xmax is one more than the last transaction that has *ended*: later ones may be running,
and may have numbered events. So a number is a bound only for transactions that began after the
number was read (``Mark``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Snapshot:
    """PostgreSQL's ``pg_snapshot``.

    Attributes:
        xmin: every transaction before this one has ended.
        xmax: this transaction and all later ones had not ended.
        running: the transactions in between that were running.
    """

    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read ``xmin:xmax:xip,xip,…``."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, running.split(",")))))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    def without(self, xid: int) -> Snapshot:
        """The same snapshot, in which the transaction ``xid`` is still running.

        PostgreSQL omits the current transaction from its own snapshots. If a later one has already
        ended, the current one would look ended too, and its later writes would count as seen.
        """
        if xid >= self.xmax:
            return self
        return Snapshot(min(self.xmin, xid), self.xmax, self.running | {xid})

    def sees(self, xid: int) -> bool:
        """Whether the writes of the transaction are visible, if it committed."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


@dataclass(frozen=True)
class Mark:
    """Events of transactions from ``xid`` on have higher numbers than ``number``.

    Attributes:
        xid: a transaction that began after the number was read.
        number: the sequence's last number at that time.
    """

    xid: int
    number: int

    def floor(self, snapshot: Snapshot) -> int:
        """The lower bound for transactions from the snapshot's xmax on."""
        return self.number if self.xid <= snapshot.xmax else 0


@dataclass(frozen=True)
class Window:
    """The position of one cursor.

    Attributes:
        lower: all events visible in this snapshot have been delivered.
        floor: event numbers of transactions from its xmax on are higher than this.
        running: the same bound for each transaction that was running then.
        upper: the snapshot up to which events are delivered now, if a window is open.
        upper_floor: its floor.
        position: the last number delivered in the open window.
        skip: numbers beyond it that were delivered early.
    """

    lower: Snapshot
    floor: int
    running: Mapping[int, int] = field(default_factory=dict)
    upper: Snapshot | None = None
    upper_floor: int = 0
    position: int | None = None
    skip: tuple[int, ...] = ()

    def opened(self, snapshot: Snapshot, floor: int) -> Window:
        """The window up to ``snapshot``, unless one is open already.

        Args:
            snapshot: taken now.
            floor: a bound for the transactions from its xmax on; the previous floor is also a
                bound.
        """
        if self.upper is not None:
            return self
        floor = max(floor, self.floor)
        return Window(self.lower, self.floor, self.running, snapshot, floor, None, self.skip)

    @property
    def start(self) -> int:
        """A lower bound for the numbers of undelivered events of the open window."""
        upper = self._open()
        if self.position is not None:
            return self.position
        ended = [number for xid, number in self.running.items() if upper.sees(xid)]
        return min([self.floor, *ended])

    @property
    def floor_of_rest(self) -> int:
        """A lower bound for the numbers of all undelivered events, in any window."""
        if self.upper is None:
            return min([self.floor, *self.running.values()])
        return min(self.start, self.closed().floor_of_rest)

    def moved(self, position: int, ahead: Sequence[int] = ()) -> Window:
        """The same window with the events up to ``position`` delivered."""
        skip = tuple(sorted({*(n for n in self.skip if n > position), *ahead}))
        return Window(
            self.lower, self.floor, self.running, self.upper, self.upper_floor, position, skip
        )

    def closed(self) -> Window:
        """The position after the open window."""
        upper = self._open()
        running = {xid: self.running.get(xid, self.floor) for xid in upper.running}
        return Window(upper, self.upper_floor, running)

    def _open(self) -> Snapshot:
        if self.upper is None:
            raise ValueError("no window is open")
        return self.upper
