"""What is called, by whatever library: something that does nothing, and one ORM write.

They count their calls, so that a benchmark can check that none is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from django.db.models.signals import post_save

import bulksafe
from benchmarks.listener.models import Captured, CapturedWriting, Seen

NOTHING, WRITE = "nothing", "write"

#: By queue name; each receiver has a queue of its own, so that one is drained without the other.
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


def declare_for_pgpubsub() -> None:
    """The same for django-pgpubsub, if it is installed."""
    try:
        from benchmarks.listener import channels  # noqa: F401, PLC0415
    except ImportError:
        return


declare_for_pgpubsub()
