"""Claiming cursors that have work, each with an open window."""

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

#: After so many seconds a cursor without work is moved on all the same, so that it keeps no slot of
#: the outbox from being emptied.
_STALE = 10.0


@dataclass(frozen=True)
class Claim:
    """Cursors that the present transaction has locked.

    Attributes:
        cursors: by queue and bucket, each with an open window.
        has_parked: whether any event is parked and others may have to wait behind it.
        session: settings of the connection that have to stay as they are.
    """

    cursors: Sequence[Cursor]
    has_parked: bool = False
    session: Sequence[str] = ()


class Claims:
    """The claims of one worker.

    Args:
        store: of the connection that locks them.
        known: what this code can call.
        guard: wraps the question for cursors, which a dead server leaves open.
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
        """Locked cursors, each with an open window.

        At READ COMMITTED: each statement sees what has been committed by then.
        """
        with self._guard():
            claim = partial(self._store.claim, self._known(), atomic=atomic, limit=limit)
            cursors = claim()
            if not cursors and self._is_time_to_look_at_all(atomic=atomic):
                cursors = claim(stale=_STALE)
        if not cursors:
            return Claim([])
        start = self._store.start()
        # The bound of the batch before: it needs a transaction that has ended. This transaction has
        # begun after the number was read there.
        floor = self._mark.floor(start.snapshot) if self._mark else 0
        self._mark = Mark(start.xid, self._number)
        self._number = start.number
        opened = [cursor.at(cursor.window.opened(start.snapshot, floor)) for cursor in cursors]
        ordered = sorted(opened, key=lambda cursor: (cursor.queue, cursor.bucket))
        return Claim(ordered, start.has_parked, start.session)

    def _is_time_to_look_at_all(self, *, atomic: bool) -> bool:
        """Whether cursors without work are to be moved on, once in a while."""
        now = time.monotonic()
        if now - self._looked.get(atomic, 0.0) < _STALE / BUCKETS:
            return False
        self._looked[atomic] = now
        return True
