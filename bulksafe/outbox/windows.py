"""What a reader of the outbox has seen and has still to see. Pure arithmetic on snapshots.

PgQ's idea (Skype, 2007): a batch is what became visible between two snapshots. Transactions commit
in another order than they begin and number their events, so a reader that goes by numbers, or by
the oldest running transaction alone, loses or swaps events. The difference of two snapshots does
neither.

The numbers of the events (``seq``) only narrow the search: a bound is kept for the transactions
from each snapshot's xmax on (``floor``), and for each that was running then (``running``). A
snapshot's xmax is one more than the last transaction that has *ended*: later ones may be running,
and may have numbered events. So a number is a bound only for the transactions from one on that is
known to have begun after the number was read (``Mark``).
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
        running: those between that were running.
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

        PostgreSQL does not list the transaction that asks. If a later one has ended by then, the
        own one would look as if it had, too: what it goes on to write would count as seen.
        """
        if xid >= self.xmax:
            return self
        return Snapshot(min(self.xmin, xid), self.xmax, self.running | {xid})

    def sees(self, xid: int) -> bool:
        """Whether what the transaction wrote is visible, if it committed."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


@dataclass(frozen=True)
class Mark:
    """What the transactions from ``xid`` on write has higher numbers than ``number``.

    Attributes:
        xid: a transaction that began after the number was read.
        number: the sequence's last number at that time.
    """

    xid: int
    number: int

    def floor(self, snapshot: Snapshot) -> int:
        """A bound for the transactions from the snapshot's xmax on."""
        return self.number if self.xid <= snapshot.xmax else 0


@dataclass(frozen=True)
class Window:
    """The position of one cursor.

    Attributes:
        lower: all that this snapshot sees has been dealt with.
        floor: the transactions from its xmax on number their events from above this.
        running: the same bound for each transaction that was running then.
        upper: the snapshot up to which events are being dealt with, if a window is open.
        upper_floor: the floor that goes with it.
        position: the last number that was dealt with in the open window.
        skip: numbers beyond it that were dealt with ahead of their turn.
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
            floor: a bound for the transactions from its xmax on; the former one is one, too.
        """
        if self.upper is not None:
            return self
        floor = max(floor, self.floor)
        return Window(self.lower, self.floor, self.running, snapshot, floor, None, self.skip)

    @property
    def start(self) -> int:
        """Every event of the open window that is not dealt with has a higher number."""
        upper = self._open()
        if self.position is not None:
            return self.position
        ended = [number for xid, number in self.running.items() if upper.sees(xid)]
        return min([self.floor, *ended])

    @property
    def floor_of_rest(self) -> int:
        """Every event that is still to be dealt with, in any window, has a higher number."""
        if self.upper is None:
            return min([self.floor, *self.running.values()])
        return min(self.start, self.closed().floor_of_rest)

    def moved(self, position: int, ahead: Sequence[int] = ()) -> Window:
        """The same window with the events up to ``position`` dealt with."""
        skip = tuple(sorted({*(n for n in self.skip if n > position), *ahead}))
        return Window(
            self.lower, self.floor, self.running, self.upper, self.upper_floor, position, skip
        )

    def closed(self) -> Window:
        """The position when the open window is worked off."""
        upper = self._open()
        running = {xid: self.running.get(xid, self.floor) for xid in upper.running}
        return Window(upper, self.upper_floor, running)

    def _open(self) -> Snapshot:
        if self.upper is None:
            raise ValueError("no window is open")
        return self.upper
