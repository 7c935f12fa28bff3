"""Bulk writes with critical receivers end as their per-row equivalents with plain ones.

Each case goes through each path with several numbers of rows: what is stored, what the caller gets
back, what is refused and what receivers did outside the database must be equal. What differs today
is listed in ``pairs/differences.txt`` and expected to fail, strictly;
``pytest tests/acceptance/test_pairs.py -n 0 --update-golden`` writes the list again.
With ``-k``, it keeps what the list says of the other cells.

A run takes one cell in thirteen, and all of them with ``BULKSAFE_TEST_ALL_CELLS=1``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from bulksafe import InvariantViolation
from tests import sampling
from tests.acceptance.committed import _django_db_helper  # noqa: F401
from tests.acceptance.pairs import cases, differences, practices, sides
from tests.acceptance.pairs.case import CASES, DELETE, Case, TransitionNotAllowed
from tests.acceptance.pairs.paths import PATHS, Path, with_codes

pytestmark = pytest.mark.django_db(transaction=True)

assert cases.__all__
assert practices.__all__

#: A hundred rows take long where each is written by itself: one path of each kind has them.
MANY, WITH_MANY = 100, ("bulk_create()", "INSERT", "update()", "delete()")

CELLS = [
    (case, path, size)
    for case in CASES
    for path in PATHS
    if path.kind in case.kinds and (not case.only or path.title in case.only)
    for size in case.sizes
    if size < MANY or path.title in WITH_MANY
]

NOW = datetime(2024, 5, 17, 12, tzinfo=UTC)

REFUSALS = (ValidationError, PermissionDenied, TransitionNotAllowed, DatabaseError)


@pytest.fixture(scope="module")
def committed(django_db_setup, django_db_blocker, request) -> Iterator[None]:
    """A database in which commits are commits, for all the tests of the module."""
    with django_db_blocker.unblock():
        sides.empty()
        yield
        sides.empty()
    if request.config.getoption("update_golden"):
        differences.write(differences.cell(*cell) for cell in CELLS)


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> None:
    """Both sides store the same times."""
    monkeypatch.setattr(timezone, "now", lambda: NOW)


@pytest.fixture(autouse=True)
def clean(committed) -> Iterator[None]:
    yield
    sides.empty()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM bulksafe_buffer), (SELECT count(*) FROM bulksafe_ticket)"
        )
        assert cursor.fetchone() == (0, 0)


#: All cells take a quarter of an hour. A sample has every case, and every path with every number
#: of rows.
SAMPLE = sampling.sample(
    {
        f"{case} {path} {size}": {"case": case, "path": (path.title, size)}
        for case, path, size in CELLS
    },
    step=1 if sampling.ALL_CASES else 13,
    start=0,
)

#: More rows find faults of order, which are the same with every version.
PARAMETERS = [
    pytest.param(case, path, size, marks=[pytest.mark.once] if size > 2 else [])
    for case, path, size in CELLS
    if f"{case} {path} {size}" in SAMPLE
]


@pytest.mark.parametrize(("case", "path", "size"), PARAMETERS, ids=str)
def test_a_bulk_write_ends_as_its_per_row_equivalent(case, path, size, request):
    updating = request.config.getoption("update_golden")
    if (reason := differences.known(case, path, size)) and not updating:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    try:
        compare(case, path, size)
    except Exception:
        if not updating:
            raise
        differences.add(case, path, size, differs=True)
    else:
        differences.add(case, path, size, differs=False)


def compare(case: Case, path: Path, size: int) -> None:
    plain, critical = sides.side("plain"), sides.side("critical")
    for m in (plain, critical):
        case.prepare(m)
    rows = [case.row(plain, n) for n in range(size)]
    with sides.plain_receivers(case, plain), sides.critical_receivers(case, critical):
        with transaction.atomic():
            case.setup(plain)
            for row in with_codes(case, plain, rows)[: path.stored(size)]:
                getattr(plain, case.model)(**row).save()
        sides.copy_to_critical()
        plain.calls.clear()
        expected = outcome(path.per_row, case, plain, rows, in_block=True)
        # A bulk write is one transaction by itself, and several saves need a block to be one.
        in_block = size % 2 == 1 or path.bulk is path.per_row
        found = outcome(path.bulk, case, critical, rows, in_block=in_block)
        if case.expected is not None:
            expected["calls"] = Counter(case.expected(path.title, size))
    for part, value in expected.items():
        if part != "state":
            assert found[part] == value, part
    assert list(different(found["state"], expected["state"])) == []


def different(found, expected):
    """The rows and columns that differ, as far as their positions identify them."""
    for table, rows in expected.items():
        if len(found[table]) != len(rows) or table in sides.UNORDERED:
            if found[table] != rows:
                yield table, found[table], rows
            continue
        for number, (one, other) in enumerate(zip(found[table], rows, strict=True)):
            for name in one:
                if one[name] != other[name]:
                    yield table, number, name, one[name], other[name]


def outcome(write, case, m, rows, *, in_block):
    """What is refused or returned, what is stored, and which effects there were besides."""
    refusal = returned = None
    try:
        with transaction.atomic() if in_block else nullcontext():
            returned = write(case, m, rows)
    except REFUSALS as error:
        refusal = described(error)
    return {
        "refusal": refusal,
        "returned": returned,
        "state": sides.state(m),
        "calls": Counter(m.calls),
    }


def described(error):
    if isinstance(error, ValidationError):
        return error.messages
    if isinstance(error, InvariantViolation):
        # The rule, without the app, which each side has its own of. A Transition's message names
        # the states of the row: of several rows that break it, an upsert may refuse a different
        # one first.
        return type(error).__name__, error.invariant.partition(".")[2]
    # PostgreSQL's own text names keys, which differ.
    return type(error).__name__, "" if isinstance(error, DatabaseError) else str(error)


def test_every_known_difference_is_one_of_a_cell():
    assert differences.listed() <= {differences.cell(*cell) for cell in CELLS}
    assert DELETE in {path.kind for path in PATHS}
