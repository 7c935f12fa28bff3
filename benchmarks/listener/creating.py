"""(d) What capturing costs a bulk_create()."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.listener import database
from benchmarks.listener.contenders.base import new_orders
from benchmarks.listener.models import Captured, OrderTable, Plain, PlainAgain, Published
from benchmarks.listener.plan import Plan
from benchmarks.measuring import measured
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim

AGAINST_NONE = Aim(1.25, at_most=True)
MEASURE = "bulk_create()"

PLAIN, PLAIN_AGAIN, CAPTURED = "without capture", "without capture, again", "captured"
PUBLISHED = "django-pgpubsub's trigger"


def variants() -> dict[str, type[OrderTable]]:
    found: dict[str, Any] = {PLAIN: Plain, CAPTURED: Captured, PLAIN_AGAIN: PlainAgain}
    try:
        from benchmarks.listener import channels  # noqa: F401, PLC0415
    except ImportError:
        return found
    return {**found, PUBLISHED: Published}


class Creating:
    """Each table in turn, several times a round; the time of a round is the mean."""

    section = "d"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.results = results
        if PUBLISHED not in variants():
            results.note("d", f"{PUBLISHED} was skipped: pip install 'bulksafe[bench]'")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        names = list(variants())
        seconds = dict.fromkeys(names, 0.0)
        database.reset_outbox()
        database.checkpoint()
        for repeat in range(self.plan.repeats):
            for name in turned(names, number + repeat):
                say(name)
                seconds[name] += self._measure(variants()[name])
        for name, total in seconds.items():
            self.results.add("d", MEASURE, name, total / self.plan.repeats * 1e3)

    def _measure(self, model: Any) -> float:
        database.empty(model)
        if model is Published:
            database.truncate("pgpubsub_notification")
        orders = new_orders(model, self.plan.rows)
        gc.collect()
        with measured() as elapsed:
            model.objects.bulk_create(orders)
        return elapsed()


def comparisons(results: Results) -> Iterator[Comparison]:
    plain = results.mean_of("d", MEASURE, PLAIN, PLAIN_AGAIN)
    captured = results.of("d", MEASURE, CAPTURED)
    subject = f"{CAPTURED} ÷ {PLAIN}"
    yield compared("d", MEASURE, subject, (captured, plain), AGAINST_NONE)
    if results.has("d", MEASURE, PUBLISHED):
        published = results.of("d", MEASURE, PUBLISHED)
        yield compared("d", MEASURE, f"{PUBLISHED} ÷ {PLAIN}", (published, plain))
        yield compared("d", MEASURE, f"{CAPTURED} ÷ {PUBLISHED}", (captured, published))
    again = results.of("d", MEASURE, PLAIN_AGAIN), results.of("d", MEASURE, PLAIN)
    yield compared("d", MEASURE, "noise: without ÷ without", again)
