"""(a) How fast a backlog is delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.listener import contenders, database
from benchmarks.listener.contenders import Bulksafe, ByHand, Contender, Floor, FloorAgain, Load
from benchmarks.listener.plan import SEVERAL, Plan
from benchmarks.listener.processes import WorkerError, run_together
from benchmarks.listener.receivers import NOTHING, WRITE
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim

AGAINST_RIVALS = Aim(5, at_most=False)
AGAINST_FLOOR = Aim(0.5, at_most=False)

RECEIVERS = {NOTHING: "receiver does nothing", WRITE: "one ORM write per event"}


class Draining:
    """All contenders take turns, each with both receivers."""

    section = "a"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.results = results
        rivals, skipped = contenders.rivals()
        self.contenders: list[Contender] = [Bulksafe(), Floor(), ByHand(), FloorAgain(), *rivals]
        results.rivals = [rival.label for rival in rivals if rival.is_rival]
        for name, reason in skipped.items():
            results.note("a", f"{name} was skipped: {reason}")
        for contender in self.contenders:
            results.note("a", f"{contender.label}: {contender.note}")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for receiver, called in RECEIVERS.items():
            for contender in self._turned(number):
                for processes in self.plan.processes:
                    if processes <= contender.most_processes:
                        say(f"{contender.label}, {called}, {_processes(processes)}")
                        self._measure(contender, receiver, processes)

    def _turned(self, number: int) -> list[Contender]:
        by = number % len(self.contenders)
        return [*self.contenders[by:], *self.contenders[:by]]

    def _measure(self, contender: Contender, receiver: str, processes: int) -> None:
        load = Load.of(self.plan.events)
        contender.fill(load, receiver)
        seconds, outcomes = run_together(
            processes, lambda: contender.drain(receiver), lambda: contender.prepare(receiver)
        )
        self._check(contender, receiver, load, sum(outcome.calls for outcome in outcomes))
        self.results.add(
            "a", measure_of(receiver, processes), contender.label, load.events / seconds
        )

    def _check(self, contender: Contender, receiver: str, load: Load, calls: int) -> None:
        """Nothing left out, nothing twice, nothing out of order."""
        if calls != load.events:
            raise WorkerError(f"{contender.label} made {calls} calls for {load.events} events.")
        if receiver == WRITE:
            swapped = database.run(_SWAPPED)[0][0]
            if swapped and contender.in_order:
                raise WorkerError(f"{contender.label} swapped {swapped} changes of a row.")


_SWAPPED = """
SELECT count(*) FROM (
    SELECT step, lag(step) OVER (PARTITION BY "order" ORDER BY id) AS before FROM listening_seen
) AS s WHERE step <= before
"""


def _processes(number: int) -> str:
    return f"{number} process" if number == 1 else f"{number} processes"


def measure_of(receiver: str, processes: int) -> str:
    return f"{RECEIVERS[receiver]}, {_processes(processes)}"


def comparisons(results: Results) -> Iterator[Comparison]:
    rivals = results.rivals
    ours, floor, again = Bulksafe.label, Floor.label, FloorAgain.label
    for receiver in RECEIVERS:
        single, several = measure_of(receiver, 1), measure_of(receiver, SEVERAL)
        for measure, tried in ((single, [single]), (several, [single, several])):
            if not results.has("a", measure, ours):
                continue
            own = results.of("a", measure, ours)
            for rival in rivals:
                if results.has("a", measure, rival):
                    theirs = results.of("a", measure, rival)
                    yield compared("a", measure, f"{ours} ÷ {rival}", (own, theirs))
            if rivals:
                best = results.best_of("a", tried, rivals)
                subject = f"{ours} ÷ best of the libraries"
                yield compared("a", measure, subject, (own, best), AGAINST_RIVALS)
        own = results.of("a", single, ours)
        least = results.mean_of("a", single, floor, again)
        yield compared("a", single, f"{ours} ÷ floor", (own, least), AGAINST_FLOOR)
        by_hand = results.of("a", single, ByHand.label)
        yield compared("a", single, f"{ours} ÷ {ByHand.label}", (own, by_hand))
        pair = results.of("a", single, again), results.of("a", single, floor)
        yield compared("a", single, "noise: floor ÷ floor", pair)
        if results.has("a", several, ours):
            both = results.of("a", several, ours), own
            yield compared("a", several, f"{ours}: {SEVERAL} processes ÷ 1", both)
