"""The right to go on with a cursor while no transaction is open."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

from bulksafe import conf
from bulksafe.outbox import parking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulksafe.outbox.parking import Parking
    from bulksafe.outbox.store import Cursor, Store


class LeaseLost(Exception):  # noqa: N818
    """Another worker has taken over: this one was silent for longer than the lease."""


@dataclass
class Lease:
    """The right to go on with a cursor while no transaction is open.

    The epoch fences: whoever takes over has a higher one, and what the former holder would store
    after that is refused.
    """

    store: Store
    cursor: Cursor
    epoch: int
    renewed: float

    @classmethod
    def take(cls, store: Store, cursor: Cursor) -> Lease:
        ((epoch,),) = store.rows("lease", cls._named(cursor, seconds=conf.get().LEASE))
        return cls(store, cursor, epoch, time.monotonic())

    @staticmethod
    def _named(cursor: Cursor, **more: float) -> dict[str, object]:
        return {"queue": cursor.queue, "bucket": cursor.bucket, **more}

    def renew(self) -> None:
        """Make sure that the lease is held, before something that cannot be undone.

        Raises:
            LeaseLost: it is not.
        """
        seconds = conf.get().LEASE
        named = self._named(self.cursor, epoch=self.epoch, seconds=seconds)
        if not self.store.rows("renew", named):
            raise LeaseLost(
                f"The lease on bucket {self.cursor.bucket} of queue {self.cursor.queue!r} was lost "
                f"after {time.monotonic() - self.renewed:.0f} s: a call took longer than "
                f'BULKSAFE["LEASE"], {seconds} s. Another worker goes on with the same event_id.'
            )
        self.renewed = time.monotonic()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A transaction in which nobody else can take over.

        Raises:
            LeaseLost: somebody has.
        """
        with transaction.atomic(using=self.store.using):
            if not self.store.rows("lock_leased", self._named(self.cursor, epoch=self.epoch)):
                raise LeaseLost(f"The lease on bucket {self.cursor.bucket} was lost.")
            yield

    def move(self, parkings: Sequence[Parking], position: int) -> None:
        """Note that all up to ``position`` is dealt with."""
        with self.held():
            parking.park(self.store, False, parkings)
            window = self.cursor.window
            if position > (window.position or 0):
                self.cursor = self.cursor.at(window.moved(position, window.skip))
                self.store.advance([self.cursor])

    def release(self) -> None:
        self.store.rows("release", self._named(self.cursor, epoch=self.epoch))
