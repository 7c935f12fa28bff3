"""The memory and the pipes that the processes of a listener share."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray, RawValue

from bulksafe.dispatch.activity import Activity
from bulksafe.listener.descriptors import readable


class Bell:
    """Wakes a different process: a pipe that both have inherited."""

    def __init__(self) -> None:
        self._ear, self._button = os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._button, False)

    def fileno(self) -> int:
        """Readable after a ring."""
        return self._ear

    def ring(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full: the other process will wake up
            os.write(self._button, b"!")

    def silence(self) -> None:
        """Clear all rings."""
        with suppress(BlockingIOError):  # the pipe is empty
            while os.read(self._ear, 4096):
                pass

    def wait(self, seconds: float) -> bool:
        """Wait; whether it rings within ``seconds``."""
        is_rung = bool(readable([self.fileno()], seconds))
        self.silence()
        return is_rung


@dataclass(frozen=True)
class Slot:
    """The slot of one worker, which outlives its processes.

    Attributes:
        queue: the queue that it delivers.
        activity: the activity of its process, in shared memory.
        bell: wakes it.
    """

    queue: str
    activity: Activity
    bell: Bell


class Shared(ctypes.Structure):
    """The keeper's state, which the supervisor reads.

    Attributes:
        is_connected: whether the keeper has a connection.
        looked: when it last checked the queues, as ``time.time()``.
        lag: seconds for which the oldest event had been due by then.
        settled: the number of the last stored death.
        is_done: whether no work is left.
    """

    _fields_ = (
        ("is_connected", ctypes.c_bool),
        ("looked", ctypes.c_double),
        ("lag", ctypes.c_double),
        ("settled", ctypes.c_long),
        ("is_done", ctypes.c_bool),
    )


@dataclass(frozen=True)
class Places:
    """Everything that the processes of a listener share.

    Attributes:
        slots: one for each worker.
        shared: the keeper's state.
        bell: wakes the keeper.
    """

    slots: Sequence[Slot]
    shared: Shared
    bell: Bell

    @classmethod
    def of(cls, concurrency: Mapping[str, int]) -> Places:
        """Create slots for the given number of workers of each queue."""
        queues = [queue for queue, number in sorted(concurrency.items()) for _ in range(number)]
        activities = RawArray(Activity, len(queues))
        slots = [Slot(queue, activities[n], Bell()) for n, queue in enumerate(queues)]
        shared = RawValue(Shared)
        shared.looked = time.time()
        return cls(slots, shared, Bell())

    @property
    def queues(self) -> list[str]:
        return sorted({slot.queue for slot in self.slots})


@dataclass(frozen=True)
class Death:
    """The call that a worker was making when its process ended.

    Attributes:
        number: a sequence number, so that a death lost with a keeper delays no other.
        queue: its queue.
        error: how it ended; empty if it has released the call.
        parked, epoch: the parked call, or 0 for a call in a batch.
        attempt: its number.
        receiver, bucket, seq: the call in a batch; an empty name if there was none.
    """

    number: int
    queue: str
    error: str
    parked: int
    epoch: int
    attempt: int
    receiver: str
    bucket: int
    seq: int
