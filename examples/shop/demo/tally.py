"""Counts the results of the expected calls, which decide whether the demo succeeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """The results of the calls of one receiver.

    Attributes:
        receiver: its name.
        effect: what it does, and where.
        due: the number of expected calls.
        made: the number of these calls that were made, each counted once.
        twice: the number of duplicates, which cannot be distinguished.
        unasked: the number of unexpected calls.
    """

    receiver: str
    effect: str
    due: int
    made: int
    twice: int = 0
    unasked: int = 0

    @property
    def lost(self) -> int:
        return self.due - self.made

    @property
    def problems(self) -> Iterator[str]:
        for number, what in (
            (self.lost, "calls were lost"),
            (self.twice, "calls were made twice"),
            (self.unasked, "calls were made that were not due"),
        ):
            if number:
                yield f"{self.receiver}: {number:,} {what}."


def tally(receiver: str, effect: str, due: Iterable[Hashable], seen: Iterable[Hashable]) -> Tally:
    """Compare the calls that were due with the effects that were found."""
    wanted, found = set(due), Counter(seen)
    return Tally(
        receiver,
        effect,
        due=len(wanted),
        made=len(wanted & found.keys()),
        twice=found.total() - len(found),
        unasked=len(found.keys() - wanted),
    )
