"""What a process is doing: the call that it makes, since when, and for how long it may."""

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
    """A call that a process makes.

    Attributes:
        receiver: its receiver's name, cut after 200 bytes.
        source: the oid of the table of its row.
        key: the row's primary key as text, cut after 80 bytes.
        bucket, seq: of its event.
        seconds: for how long it has been running.
        limit: seconds after which it is asked to end: at once in a call of its own, where it has
            run for its receiver's timeout; sooner in a batch.
        timeout: seconds that its receiver allows.
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
        beat: when it last went round its loop, as ``time.time()``.
        is_connected: whether it has a connection.
        is_idle: whether it waits to be woken.
        looked: when its last look began that found nothing to do, as ``time.monotonic()``.
        delivered, failed: how many calls it made.
        rounds: how often it found something to do.
        parked, epoch, attempt: the parked call that it deals with; 0, 0 and 1 for none.
        must_stop: whether it is to end. A signal alone does not reach a process in which a receiver
            has replaced or blocked the handler.
        finished: when it has done its work, as ``time.monotonic()``; 0 before.
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
        """A new process is about to use it."""
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
        """A call begins, and may take ``limit`` seconds here, and ``timeout`` seconds anywhere."""
        event = call.changes[-1].event
        self._receiver = call.receiver.encoded_name[:200]
        self._key = event.key.encode(errors="replace")[:80]
        self._source = event.source
        self._bucket = event.bucket
        self._seq = event.seq
        self._limit, self._timeout = limit, timeout
        # Last: a reader must not see the call before its other fields are set.
        self._since = time.monotonic()

    def end(self) -> None:
        """The call has ended."""
        self._since = 0.0

    @property
    def last_receiver(self) -> str:
        """The name of the receiver that was called last."""
        return str(self._receiver.decode(errors="replace"))

    def running(self) -> RunningCall | None:
        """The present call. Read from another process, it is one that has been there a moment."""
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
            CallTimedOut: the present call has taken longer than it may.
        """
        late = self.running()
        if late is not None and late.seconds >= late.limit:
            what = "its timeout" if late.limit == late.timeout else 'BULKSAFE["SLOW_CALL"]'
            raise CallTimedOut(f"{late.receiver} exceeded {what} of {late.limit:g} s")
