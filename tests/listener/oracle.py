"""Whether receivers were called for exactly the changes that happened to the rows.

Every change of a row counts its version up by one, so the calls for a row have to say 0, 1, 2, 3 …
up to the version that the row has in the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

#: A call: the row, its version before (None if it was not there) and its version after.
Call = tuple[int, int | None, int]


@dataclass(frozen=True)
class Verdict:
    """Each item is a row and the version of a change.

    Attributes:
        lost: changes that no call came for.
        doubled: changes that more than one call came for.
        swapped: changes that a call came for after one for a later change of the same row.
        wrong: calls for what never happened, or with another old state than the row had.
    """

    lost: list[tuple[int, int]] = field(default_factory=list)
    doubled: list[tuple[int, int]] = field(default_factory=list)
    swapped: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[Call] = field(default_factory=list)

    @property
    def is_exactly_once(self) -> bool:
        return not (self.lost or self.doubled or self.swapped or self.wrong)

    @property
    def is_at_least_once(self) -> bool:
        """Repeated calls are allowed; the first calls have to be in order."""
        return not (self.lost or self.swapped or self.wrong)


def judge(versions: Mapping[int, int], made: Iterable[Call]) -> Verdict:
    """Compare calls, in the order in which they were made, with the rows' versions in the end."""
    verdict = Verdict()
    calls: dict[int, list[int]] = defaultdict(list)
    for row, old, new in made:
        if row not in versions or new > versions[row] or old != (new - 1 if new else None):
            verdict.wrong.append((row, old, new))
        else:
            calls[row].append(new)
    for row, version in versions.items():
        times = Counter(calls[row])
        verdict.lost.extend((row, new) for new in range(version + 1) if not times[new])
        verdict.doubled.extend((row, new) for new, made in sorted(times.items()) if made > 1)
        firsts = list(dict.fromkeys(calls[row]))
        verdict.swapped.extend((row, new) for before, new in pairwise(firsts) if new < before)
    return verdict
