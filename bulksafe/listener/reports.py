"""The keeper's reports on the workers: long calls, renewed leases, deaths."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from bulksafe import conf
from bulksafe.declarations import receivers
from bulksafe.outbox import parking

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from bulksafe.listener.slots import Death, Places
    from bulksafe.outbox.known import Known
    from bulksafe.outbox.store import Store

#: Seconds between two reports, and between two checks of the backlog.
_REPORT, _LAG = 1.0, 5.0
#: Seconds after which a call is reported.
_LONG = 0.5


class Reports:
    """Keeps a listener's rows in ``bulksafe_worker`` and its leases up to date.

    Args:
        store: the keeper's connection.
        places: the workers' shared state.
        deaths: the pipe on which the supervisor sends deaths.
    """

    def __init__(self, store: Store, places: Places, deaths: Connection) -> None:
        self._store = store
        self._places = places
        self._deaths = deaths
        #: Received but not stored yet: the connection may be lost in between.
        self._unsettled: Death | None = None
        self._host = socket.gethostname()
        self._listener = os.getppid()
        self._written = float("-inf")
        self._asked = float("-inf")

    def seconds(self) -> float:
        """Seconds until the next report."""
        return max(self._interval() - (time.monotonic() - self._written), 0.01)

    def _interval(self) -> float:
        is_leased = any(slot.activity.parked for slot in self._places.slots)
        return min(_REPORT, conf.get().LEASE / 4) if is_leased else _REPORT

    def write(self, known: Known) -> None:
        """Settle the deaths, and write the reports that are due.

        Args:
            known: the receivers and tables of this code.
        """
        self._settle_deaths()
        now = time.monotonic()
        if now - self._written < self._interval():
            return
        self._renew_leases()
        self._write_workers()
        self._written = now
        if now - self._asked > _LAG:
            self._places.shared.lag = self._store.longest_due(self._places.queues, known)
            self._asked = now
        self._places.shared.looked = time.time()

    def end(self) -> None:
        """Store the last deaths, and delete the rows of this listener's workers."""
        self._settle_deaths()
        self._store.rows("forget_workers", {"host": self._host, "listener": self._listener})

    def _settle_deaths(self) -> None:
        while self._unsettled or self._deaths.poll():
            self._unsettled = death = self._unsettled or self._deaths.recv()
            self._settle(death)
            self._places.shared.settled = death.number
            self._unsettled = None

    def _settle(self, death: Death) -> None:
        if death.parked and not death.error:
            self._store.rows("give_back", {"id": death.parked, "epoch": death.epoch})
        elif death.parked:
            receiver = receivers.by_name(death.receiver)
            lease = death.parked, death.epoch
            parking.died(self._store, lease, death.attempt, receiver, death.error)
        elif death.seq and death.error:
            named = {"queue": death.queue, "bucket": death.bucket, "receiver": death.receiver}
            self._store.rows("suspect", {**named, "seq": death.seq, "error": death.error})

    def _renew_leases(self) -> None:
        held = [(slot.activity.parked, slot.activity.epoch) for slot in self._places.slots]
        leases = [(parked, epoch) for parked, epoch in held if parked]
        if leases:
            ids, epochs = zip(*leases, strict=True)
            named = {"ids": list(ids), "epochs": list(epochs), "lease": conf.get().LEASE}
            self._store.rows("renew", named)

    def _write_workers(self) -> None:
        workers: dict[str, list[Any]] = {
            name: [] for name in ("pids", "queues", "receivers", "sources", "keys", "seconds")
        }
        for slot in self._places.slots:
            call = slot.activity.running()
            is_long = call is not None and call.seconds > _LONG
            workers["pids"].append(slot.activity.pid)
            workers["queues"].append(slot.queue)
            workers["receivers"].append(call.receiver if call and is_long else None)
            workers["sources"].append(call.source if call and is_long else None)
            workers["keys"].append(call.key if call and is_long else None)
            workers["seconds"].append(call.seconds if call and is_long else None)
        named = {"host": self._host, "listener": self._listener, **workers}
        self._store.rows("write_workers", named)
