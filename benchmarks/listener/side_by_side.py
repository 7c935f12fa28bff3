"""(f) Receivers outside a transaction: how many of a queue run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, sleep

from benchmarks.listener import database
from benchmarks.listener.contenders.base import new_orders
from benchmarks.listener.models import CapturedWaiting
from benchmarks.listener.plan import Plan
from benchmarks.listener.processes import Forked, WorkerError
from benchmarks.listener.receivers import WAIT, WAITS, waiting
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim
from bulksafe.listener.supervisor import Supervisor

AGAINST_IDEAL = Aim(0.8, at_most=False)
MEASURE = "calls/s"
IDEAL = "concurrency ÷ duration"
#: Numbers of workers of the queue.
CONCURRENCIES = 1, 4, 8
#: Seconds until the last call must have ended.
_PATIENCE = 120.0


def workers(concurrency: int) -> str:
    return f"--concurrency {WAIT}={concurrency}"


class SideBySide:
    """As many calls for each worker, of as many rows."""

    section = "f"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.results = results
        results.note("f", f"A call takes {WAITS:g} s. Timed from the first call to the last end.")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for concurrency in turned(CONCURRENCIES, number):
            say(workers(concurrency))
            self._measure(concurrency)

    def _measure(self, concurrency: int) -> None:
        database.empty(CapturedWaiting)
        database.reset_outbox()
        waiting.reset()
        calls = self.plan.calls * concurrency
        CapturedWaiting.objects.bulk_create(new_orders(CapturedWaiting, calls))
        listener = Forked(lambda: Supervisor("default", {WAIT: concurrency}).run())
        try:
            listener.go()
            end = monotonic() + _PATIENCE
            while waiting.number < calls and monotonic() < end:
                sleep(0.05)
            listener.terminate()
        finally:
            listener.kill()
        if waiting.number != calls:
            raise WorkerError(f"{waiting.number} of {calls} calls were made.")
        ideal = concurrency / WAITS
        self.results.add("f", MEASURE, workers(concurrency), calls / waiting.seconds())
        self.results.add("f", MEASURE, f"{IDEAL}, {workers(concurrency)}", ideal)


def comparisons(results: Results) -> Iterator[Comparison]:
    for concurrency in CONCURRENCIES:
        name = workers(concurrency)
        pair = results.of("f", MEASURE, name), results.of("f", MEASURE, f"{IDEAL}, {name}")
        yield compared("f", MEASURE, f"{name} ÷ ({IDEAL})", pair, AGAINST_IDEAL)
