"""Computes latencies and findings from times. Does not import Django, so it is easy to test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from benchmarks.isolation.workloads import MEASURED, RECEIVERS

IDLE = "idle"

#: How many times its idle p95 the p95 latency of a queue may be.
LIMIT = 2.0


@dataclass(frozen=True)
class Phase:
    """What was written while the receivers of one queue did one thing.

    Attributes:
        title: what they did, or ``IDLE``.
        commits: when each ping was committed, by its key, as ``time.monotonic()``.
        misdeeds: the rows whose receivers misbehave.
        dead: how many dead letters these rows have become.
    """

    title: str
    commits: Mapping[int, float]
    misdeeds: int = 0
    dead: int = 0

    @property
    def bad_calls(self) -> int:
        """Not counting further attempts."""
        return self.misdeeds * RECEIVERS


@dataclass(frozen=True)
class Latency:
    """From COMMIT to the call, in seconds."""

    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        if len(seconds) < 2:
            return None
        cuts = quantiles(seconds, n=20)
        return cls(cuts[9], cuts[18])


#: When a row's receiver was first called, by (queue, key).
Calls = Mapping[tuple[str, int], float]


def parse_calls(lines: Iterable[str]) -> dict[tuple[str, int], float]:
    """The first call of each row in each queue: a batch may run twice."""
    found: dict[tuple[str, int], float] = {}
    for queue, key, at in (line.split() for line in lines):
        found.setdefault((queue, int(key)), float(at))
    return found


@dataclass(frozen=True)
class Measured:
    """A whole run.

    Attributes:
        phases: idle first and last.
        calls: of the pings, in the measured queues.
    """

    phases: Sequence[Phase]
    calls: Calls

    def latency(self, queue: str, *phases: Phase) -> Latency | None:
        """The latency of a queue over some phases.

        Pings without a call are left out; where fewer than two have one, there is no latency.
        """
        return Latency.of(
            [
                self.calls[queue, key] - committed
                for phase in phases
                for key, committed in phase.commits.items()
                if (queue, key) in self.calls
            ]
        )

    def idle(self, queue: str) -> Latency | None:
        """The latency of a queue over both idle phases."""
        return self.latency(queue, *(phase for phase in self.phases if phase.title == IDLE))

    def ratio(self, queue: str, phase: Phase) -> float | None:
        """A queue's p95 latency in a phase ÷ its idle one; None if either is missing."""
        latency, idle = self.latency(queue, phase), self.idle(queue)
        return latency.p95 / idle.p95 if latency and idle else None

    def failures(self) -> Iterator[str]:
        """What is not as it should be."""
        for phase in self.phases:
            if phase.dead != phase.bad_calls:
                yield f"{phase.title}: {phase.dead} of {phase.bad_calls} bad calls are dead letters"
            for queue in MEASURED:
                lost = sum((queue, key) not in self.calls for key in phase.commits)
                if lost:
                    yield f"{phase.title}: the queue {queue!r} lost {lost} events"
                ratio = self.ratio(queue, phase)
                if ratio is not None and ratio > LIMIT:
                    yield (
                        f"{phase.title}: the p95 latency of the queue {queue!r} is {ratio:.2f} "
                        f"times its idle value, more than {LIMIT:g}"
                    )
