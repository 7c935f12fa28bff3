"""Two common but wrong readers of the outbox, which the oracle has to catch.

Each remembers in memory how far it has come, and hands over what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.listener.oracle import Call

_EVENT = """
    SELECT seq, xid::text::bigint, (new ->> 'id')::bigint,
           (old ->> 'version')::integer, (new ->> 'version')::integer
    FROM bulksafe_outbox
"""


@dataclass
class BySequence:
    """Reads what has a higher number than what it has read.

    A transaction that took a lower number and commits later is passed over.
    """

    calls: list[Call] = field(default_factory=list)
    _last: int = 0

    def read(self, connection):
        for seq, _, *call in connection.execute(
            f"{_EVENT} WHERE seq > %s ORDER BY seq", [self._last]
        ).fetchall():
            self._last = seq
            self.calls.append(tuple(call))


@dataclass
class BehindOldest:
    """Reads transactions up to the oldest one that runs (``pg_snapshot_xmin``).

    Nothing is passed over, but transactions come in the order of their numbers, and a row may be
    written by one with a high number before one with a low number writes it.

    Attributes:
        order: of the events that one look finds: ``"seq"`` or ``"xid, seq"``.
    """

    order: str
    calls: list[Call] = field(default_factory=list)
    _next: int = 0

    def read(self, connection):
        ((oldest,),) = connection.execute(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        ).fetchall()
        for _, _, *call in connection.execute(
            f"{_EVENT} WHERE xid >= %s::text::xid8 AND xid < %s::text::xid8 ORDER BY {self.order}",
            [str(self._next), str(oldest)],
        ).fetchall():
            self.calls.append(tuple(call))
        self._next = oldest
