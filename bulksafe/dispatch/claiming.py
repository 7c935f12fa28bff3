"""Claims cursors that have work, each with an open window."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bulksafe.outbox.cursors import BUCKETS, Cursor
from bulksafe.outbox.windows import Mark

if TYPE_CHECKING:
    from bulksafe.outbox.known import Known
    from bulksafe.outbox.store import Store

#: Seconds after which even a cursor without work is advanced, so that it does not keep an outbox
#: slot from being emptied.
_STALE = 10.0


@dataclass(frozen=True)
class Claim:
    """Cursors that the current transaction has locked.

    Attributes:
        cursors: by queue and bucket, each with an open window.
        has_parked: whether any event is parked, so that others may have to wait behind it.
        session: connection settings that must not change.
    """

    cursors: Sequence[Cursor]
    has_parked: bool = False
    session: Sequence[str] = ()


class Claims:
    """The claims of one worker.

    Args:
        store: of the connection that locks them.
        known: the receivers and tables of this code.
        guard: wraps the query for cursors, which would hang on a dead server.
    """

    def __init__(
        self,
        store: Store,
        known: Callable[[], Known],
        guard: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._store = store
        self._known = known
        self._guard = guard
        self._mark: Mark | None = None
        self._number = 0
        self._looked: dict[bool, float] = {}

    def claimed(self, *, atomic: bool, limit: int) -> Claim:
        """Locked cursors, each with an open window."""
        with self._guard():
            claim = partial(self._store.claim, self._known(), atomic=atomic, limit=limit)
            start = claim()
            if start is None and self._is_time_to_look_at_all(atomic=atomic):
                start = claim(stale=_STALE)
        if start is None:
            return Claim([])
        # The bound of the previous batch: it must come from a transaction that has ended. This
        # transaction began after that.
        floor = self._mark.floor(start.snapshot) if self._mark else 0
        self._mark = Mark(start.xid, self._number)
        self._number = start.number
        ordered = sorted(start.opened(floor), key=lambda cursor: (cursor.queue, cursor.bucket))
        return Claim(ordered, start.has_parked, start.session)

    def _is_time_to_look_at_all(self, *, atomic: bool) -> bool:
        """Whether it is time to advance cursors without work."""
        now = time.monotonic()
        if now - self._looked.get(atomic, 0.0) < _STALE / BUCKETS:
            return False
        self._looked[atomic] = now
        return True
