"""Counts what became of the calls that were due. It decides whether the demo shows what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """What became of the calls of one receiver.

    Attributes:
        receiver: its name.
        effect: what it does, and where.
        due: how many calls there had to be.
        made: how many of them there were, each counted once.
        twice: how many there were beyond that, with no way to tell them apart.
        unasked: how many there were that were not due.
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
