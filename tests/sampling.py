"""The cases that a run takes of a matrix: a test of several parameters.

One case in ``step``, and the first case of every value that none of those has: what fails for one
value of one parameter is found. ``BULKSAFE_TEST_ALL_CELLS=1`` takes all cases.
"""

from __future__ import annotations

import os
import platform
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import django
import pytest

ALL_CASES = "BULKSAFE_TEST_ALL_CELLS" in os.environ


def sample(cases: Mapping[str, Mapping[str, object]], step: int, start: int) -> set[str]:
    """The names of the cases to take.

    A case is taken for its name, not for its place: each n-th one would have the same values again
    where a parameter has a multiple of n values.

    Args:
        cases: by their names, the values of the parameters by theirs.
        start: samples that begin differently, modulo ``step``, share no case taken for its name.
    """
    values = {
        case: {(name, str(value)) for name, value in parameters.items()}
        for case, parameters in cases.items()
    }
    chosen = {case for case in cases if (zlib.crc32(case.encode()) - start) % step == 0}
    seen = {value for case in chosen for value in values[case]}
    for case, own in values.items():
        if not own <= seen:
            chosen.add(case)
            seen |= own
    return chosen


def split(
    items: Sequence[pytest.Item], least_step: int
) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests to run and those to leave out.

    Args:
        least_step: the step of tests that the marker ``matrix`` gives none, or a smaller one. The
            marker's ``each`` makes one more value of the parameters, to occur at least once.
    """
    functions: dict[str, dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        if spec := getattr(item, "callspec", None):
            functions[item.nodeid.removesuffix(f"[{spec.id}]")][spec.id] = item
    left_out = {
        item for name, cases in functions.items() for item in _left_out(name, cases, least_step)
    }
    return [item for item in items if item not in left_out], [*left_out]


def _left_out(name: str, cases: dict[str, pytest.Item], least_step: int) -> list[pytest.Item]:
    marker = next(iter(cases.values())).get_closest_marker("matrix")
    step = max(least_step, marker.args[0] if marker else 1)
    if ALL_CASES or step == 1:
        return []
    start = marker.kwargs.get("start") if marker else None
    if start is None:
        start = zlib.crc32(name.encode())
    if least_step > 1:
        # CI tests several versions: each takes other cases.
        start += zlib.crc32(f"{platform.python_version()} {django.VERSION}".encode())
    parameters = {case: dict(item.callspec.params) for case, item in cases.items()}
    if marker and (combine := marker.kwargs.get("each")):
        for own in parameters.values():
            own["each"] = combine(own)
    chosen = sample(parameters, step, start)
    return [item for case, item in cases.items() if case not in chosen]
