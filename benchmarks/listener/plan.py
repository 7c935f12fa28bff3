"""What is measured, and how much."""

from __future__ import annotations

import os
from dataclasses import dataclass

SECTIONS = {
    "a": "(a) events per second from a backlog",
    "b": "(b) milliseconds from COMMIT to the receiver, listener idle",
    "c": "(c) commits per second of 16 clients, one INSERT each",
    "d": "(d) bulk_create() of 10,000 rows, milliseconds",
    "e": "(e) a large backlog, and a transaction held open meanwhile",
    "f": "(f) receivers outside a transaction, side by side",
}


@dataclass(frozen=True)
class Plan:
    """The sizes of a run.

    Attributes:
        rounds: how often each section but (e) is measured.
        events: the backlog of (a).
        commits: how many commits (b) times in a round.
        seconds: how long pgbench runs for one figure.
        processes: with how many (a) is measured.
        calls: how many calls (f) makes for each worker.
        repeats: how often (d) makes its rows in a round.
        rows: how many rows (d) makes at once.
        backlogs: the backlogs of (e), the smaller one first.
    """

    rounds: int
    events: int
    commits: int
    seconds: int
    processes: tuple[int, ...]
    calls: int
    repeats: int
    rows: int = 10_000
    backlogs: tuple[int, int] = (100_000, 1_000_000)


#: The number of processes beside 1.
SEVERAL = min(max(os.cpu_count() or 2, 2), 4)

FULL = Plan(
    rounds=5, events=10_000, commits=200, seconds=10, processes=(1, SEVERAL), calls=30, repeats=3
)
QUICK = Plan(
    rounds=1,
    events=500,
    commits=30,
    seconds=1,
    processes=(1,),
    calls=5,
    repeats=1,
    backlogs=(5_000, 50_000),
)
