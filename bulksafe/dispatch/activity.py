"""The activity of a worker process: its current call, since when, and its time limit."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulksafe.exceptions import CallTimedOut

if TYPE_CHECKING:
    from bulksafe.dispatch.calls import Call
    from bulksafe.outbox.parking import Taken


@dataclass(frozen=True)
class RunningCall:
    """The current call of a process.

    Attributes:
        receiver: its receiver's name, cut after 200 bytes.
        source: the oid of the table of its row.
        key: the row's primary key as text, cut after 80 bytes.
        bucket, seq: of its event; 0 if a batch checks its deferred constraints.
        seconds: seconds since it began.
        limit: seconds after which it is interrupted: the receiver's timeout for a call that runs
            alone, less in a batch.
        timeout: the receiver's timeout in seconds.
        parked: the id of a parked call, or 0 for one in a batch.
        epoch: the lease of a parked call.
        attempt: its number.
    """

    receiver: str
    source: int
    key: str
    bucket: int
    seq: int
    seconds: float
    limit: float
    timeout: float
    parked: int
    epoch: int
    attempt: int
    #: When it began, as ``time.monotonic()``: identifies the call within its process.
    since: float


class Activity(ctypes.Structure):
    """The state of one worker process, in memory that its supervisor shares.

    Only the process itself writes to it, except that the keeper clears ``is_idle`` to wake it, and
    the supervisor sets ``must_stop``.

    Attributes:
        pid: the process.
        beat: the last iteration of its loop, as ``time.time()``.
        is_connected: whether it has a connection.
        is_idle: whether it waits to be woken.
        looked: the start of its last search that found no work, as ``time.monotonic()``.
        delivered, failed: how many calls it made.
        rounds: how often it found work.
        parked, epoch, attempt: the parked call being processed; 0, 0 and 1 for none.
        must_stop: whether it must stop. A signal alone does not reach a process whose receiver has
            replaced or blocked the handler.
        finished: the time its work was done, as ``time.monotonic()``; 0 before.
    """

    _fields_ = (
        ("pid", ctypes.c_long),
        ("beat", ctypes.c_double),
        ("is_connected", ctypes.c_bool),
        ("is_idle", ctypes.c_bool),
        ("looked", ctypes.c_double),
        ("delivered", ctypes.c_long),
        ("failed", ctypes.c_long),
        ("rounds", ctypes.c_long),
        ("_since", ctypes.c_double),
        ("_limit", ctypes.c_double),
        ("_timeout", ctypes.c_double),
        ("_receiver", ctypes.c_char * 200),
        ("_source", ctypes.c_longlong),
        ("_key", ctypes.c_char * 80),
        ("_bucket", ctypes.c_short),
        ("_seq", ctypes.c_longlong),
        ("parked", ctypes.c_longlong),
        ("epoch", ctypes.c_longlong),
        ("attempt", ctypes.c_int),
        ("must_stop", ctypes.c_bool),
        ("finished", ctypes.c_double),
    )

    def start(self) -> None:
        """Reset it for a new process."""
        ctypes.memset(ctypes.addressof(self), 0, ctypes.sizeof(self))
        self.leave()
        self.pid = os.getpid()
        self.beat = time.time()

    def take(self, taken: Taken) -> None:
        """The next call is this parked one."""
        self.parked, self.epoch, self.attempt = taken.id, taken.epoch, taken.attempts

    def leave(self) -> None:
        """The next calls belong to batches."""
        self.parked = self.epoch = 0
        self.attempt = 1

    def begin(self, call: Call, limit: float, timeout: float) -> None:
        """Record the start of a call and its limits in seconds, here and for its receiver."""
        event = call.changes[-1].event
        self._receiver = call.receiver.encoded_name[:200]
        self._key = event.key.encode(errors="replace")[:80]
        self._source = event.source
        self._bucket = event.bucket
        self._seq = event.seq
        self._limit, self._timeout = limit, timeout
        # Last: a reader must not see the call before its other fields are set.
        self._since = time.monotonic()

    def begin_check(self, limit: float) -> None:
        """A batch begins to check its deferred constraints: no receiver is to blame for it."""
        self._receiver = b"the check of a batch's constraints"
        self._key = b""
        self._source = self._bucket = self._seq = 0
        self._limit = self._timeout = limit
        self._since = time.monotonic()

    def end(self) -> None:
        """The call has ended."""
        self._since = 0.0

    @property
    def last_receiver(self) -> str:
        """The name of the receiver that was called last."""
        return str(self._receiver.decode(errors="replace"))

    def running(self) -> RunningCall | None:
        """The current call. A different process may read one that has just ended."""
        since = self._since
        if not since:
            return None
        found = RunningCall(
            self._receiver.decode(errors="replace"),
            self._source,
            self._key.decode(errors="replace"),
            self._bucket,
            self._seq,
            time.monotonic() - since,
            self._limit,
            self._timeout,
            self.parked,
            self.epoch,
            self.attempt,
            since,
        )
        return found if self._since == since else None

    def raise_if_late(self) -> None:
        """Called in the process itself, by a signal handler.

        Raises:
            CallTimedOut: the current call has exceeded its limit.
        """
        late = self.running()
        if late is not None and late.seconds >= late.limit:
            what = "its timeout" if late.limit == late.timeout else 'BULKSAFE["SLOW_CALL"]'
            raise CallTimedOut(f"{late.receiver} exceeded {what} of {late.limit:g} s")
