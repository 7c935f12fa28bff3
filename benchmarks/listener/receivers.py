"""What is called: something that does nothing, one ORM write, and something that waits.

They count their calls, so that a benchmark can check that none is missing.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, field
from time import monotonic, sleep

from django.db.models.signals import post_save

import bulksafe
from benchmarks.listener.models import Captured, CapturedWaiting, CapturedWriting, Seen

NOTHING, WRITE, WAIT = "nothing", "write", "wait"
#: Seconds that a call takes which waits.
WAITS = 0.1

#: What all libraries are compared with, by queue name; each receiver has a queue of its own, so
#: that one is drained without the other.
MODELS = {NOTHING: Captured, WRITE: CapturedWriting}


@dataclass
class Calls:
    """The calls in this process.

    Attributes:
        number: how many there were.
        times: the times of the calls, if requested.
    """

    number: int = 0
    times: list[float] | None = field(default=None)

    def note(self) -> None:
        self.number += 1
        if self.times is not None:
            self.times.append(monotonic())


calls = Calls()


class SharedCalls:
    """The calls in this process and in those that are forked from it."""

    def __init__(self) -> None:
        self._number = multiprocessing.Value("l")
        self._began = multiprocessing.Value("d")
        self._ended = multiprocessing.Value("d")

    def reset(self) -> None:
        self._number.value = 0
        self._began.value = self._ended.value = 0.0

    def note(self, began: float) -> None:
        """A call that began then, as ``time.monotonic()``, ends now."""
        with self._number.get_lock():
            self._number.value += 1
            self._began.value = min(self._began.value or began, began)
            self._ended.value = monotonic()

    @property
    def number(self) -> int:
        return int(self._number.value)

    def seconds(self) -> float:
        """From the beginning of the first call to the end of the last one."""
        return float(self._ended.value - self._began.value)


waiting = SharedCalls()


@bulksafe.critical(
    post_save, sender=Captured, run="after_commit", queue=NOTHING, dispatch_uid="nothing"
)
def do_nothing(instance, **kwargs):
    calls.note()


@bulksafe.critical(
    post_save, sender=CapturedWriting, run="after_commit", queue=WRITE, dispatch_uid="write"
)
def write(instance, **kwargs):
    calls.note()
    Seen.objects.create(order=instance.pk, step=instance.step)


@bulksafe.critical(
    post_save,
    sender=CapturedWaiting,
    run="after_commit",
    queue=WAIT,
    atomic=False,
    dispatch_uid="wait",
)
def wait(instance, **kwargs):
    began = monotonic()
    sleep(WAITS)
    waiting.note(began)


def declare_for_pgpubsub() -> None:
    """The same for django-pgpubsub, if it is installed."""
    try:
        from benchmarks.listener import channels  # noqa: F401, PLC0415
    except ImportError:
        return


declare_for_pgpubsub()
