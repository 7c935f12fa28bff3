"""The process of one worker."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import TYPE_CHECKING

from django.db import connections

from bulksafe import conf
from bulksafe.declarations import receivers
from bulksafe.dispatch.worker import Worker
from bulksafe.listener.journal import DatabaseJournal
from bulksafe.listener.serving import STEP, Serving
from bulksafe.outbox import parking, rebasing

if TYPE_CHECKING:
    from bulksafe.listener.slots import Bell, Slot
    from bulksafe.listener.watchdog import Watchdog

#: Sent by the supervisor when a call takes too long. Not SIGALRM, which receivers may use, nor
#: SIGUSR1, with which many projects dump their stacks.
ALARM = signal.SIGUSR2


class WorkerProcess:
    """Delivers the events of one queue until it is signalled to stop.

    Args:
        serving: owns the connection and the signals.
        slot: the worker's shared state.
        keeper: rung when the worker becomes idle.
    """

    def __init__(self, serving: Serving, slot: Slot, keeper: Bell) -> None:
        self._serving = serving
        self._slot = slot
        self._keeper = keeper
        self._activity = slot.activity

    def run(self) -> None:
        self._activity.start()
        self._serving.on_signal = self._slot.bell.ring
        signal.signal(ALARM, self._on_alarm)
        try:
            self._serving.run(self._serve)
        finally:
            self._activity.finished = time.monotonic()

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self._activity.raise_if_late()

    def _serve(self, watchdog: Watchdog) -> None:
        journal = DatabaseJournal(self._serving.using, watchdog)
        try:
            worker = Worker(
                self._serving.using,
                [self._slot.queue],
                journal,
                self._activity,
                self._serving.stopping,
                watchdog.watch,
            )
            # Before the first batch, because the keeper may be too late. Watched, because the
            # journal's connection is newer and may work although this one is dead.
            with watchdog.watch():
                is_ahead = rebasing.is_ahead(worker.store)
            if is_ahead:
                rebasing.rebase(worker.store)
            self._settle(worker)
            self._activity.is_connected = True
            while not self._serving.stopping():
                began = time.monotonic()
                done = worker.work()
                # Not before: if each new connection fails in the work, the pauses must grow.
                self._serving.connected()
                self._activity.beat = time.time()
                self._close_unusable()
                if done:
                    self._activity.rounds += 1
                else:
                    self._activity.looked = began
                    self._rest()
        finally:
            self._activity.is_connected = False
            journal.close()

    def _settle(self, worker: Worker) -> None:
        """Store the failure of the call that lost the connection. Its attempt was counted."""
        activity = self._activity
        if activity.parked:
            error = "the connection was lost during the call"
            receiver = receivers.by_name(activity.last_receiver)
            lease = activity.parked, activity.epoch
            parking.died(worker.store, lease, activity.attempt, receiver, error)
        activity.leave()

    def _rest(self) -> None:
        """Wait to be woken. Check again every ``POLL_INTERVAL``, in case the keeper is gone."""
        self._activity.is_idle = True
        self._keeper.ring()
        end = time.monotonic() + conf.get().POLL_INTERVAL
        while (left := end - time.monotonic()) > 0 and not self._serving.stopping():
            if self._slot.bell.wait(min(left, STEP)):
                break
        self._activity.is_idle = False

    def _close_unusable(self) -> None:
        """Close broken connections as Django does between requests; receivers may use any."""
        for connection in connections.all(initialized_only=True):
            if connection.alias != self._serving.using:
                connection.close_if_unusable_or_obsolete()
