"""Events of one row and one transaction: their order, and which are one change."""

import datetime
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulksafe.outbox.event_order import chained, chained_by_part, in_order, merged
from bulksafe.outbox.events import Event

AT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def event(seq, operation="U", *, part=None, depth=1, key="1", xid=5):
    return Event(
        slot=0,
        seq=seq,
        xid=xid,
        bucket=0,
        at=AT,
        source=100,
        part=part,
        operation=operation,
        depth=depth,
        key=key,
    )


def numbers(events):
    return [e.seq for e in events]


def spans(events):
    """Each change as (operation, the event before it, the event after it)."""
    return [(e.operation, e.before.seq, e.seq) for e in events]


def unchained(events):
    return events


def test_events_of_different_rows_keep_their_order():
    events = [event(1, key="a"), event(2, key="b"), event(3, key="a")]

    assert numbers(in_order(events, unchained)) == [1, 2, 3]


PARENT, CHILD = 200, 201


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # save(): the parent's table, then the child's.
        ([PARENT, CHILD], [("U", 1, 2)]),
        ([PARENT, CHILD, PARENT, CHILD], [("U", 1, 2), ("U", 3, 4)]),
        # QuerySet.update() of columns of both.
        ([CHILD, PARENT], [("U", 1, 2)]),
        ([PARENT, PARENT], [("U", 1, 1), ("U", 2, 2)]),
        ([CHILD], [("U", 1, 1)]),
        ([PARENT, PARENT, CHILD], [("U", 1, 1), ("U", 2, 3)]),
    ],
)
def test_a_row_in_several_tables(parts, expected):
    events = [event(number, part=part) for number, part in enumerate(parts, 1)]

    assert spans(in_order(events, unchained)) == expected


def test_rows_of_other_transactions_are_not_joined():
    events = [event(1, part=PARENT, xid=5), event(2, part=CHILD, xid=6)]

    assert spans(in_order(events, unchained)) == [("U", 1, 1), ("U", 2, 2)]


def test_a_row_that_moves_to_another_partition_is_updated():
    moved = [event(1, "D", part=1), event(2, "I", part=2)]

    assert spans(merged(moved)) == [("U", 1, 2)]


def test_a_row_deleted_and_inserted_again_in_a_partition():
    reinserted = [event(1, "D", part=1), event(2, "I", part=1)]

    assert spans(merged(reinserted)) == [("D", 1, 1), ("I", 2, 2)]


def test_a_new_row_is_not_part_of_the_following_update():
    events = [event(1, "I", part=CHILD), event(2, "U", part=PARENT)]

    assert spans(merged(events)) == [("I", 1, 1), ("U", 2, 2)]


def test_the_conditions_of_the_parts_are_those_of_the_change():
    parts = [event(1, part=PARENT), event(2, part=CHILD)]
    parts = [replace(e, matched=m) for e, m in zip(parts, (["a"], ["b"]), strict=True)]

    assert merged(parts)[0].matched == ["a", "b"]


def test_changes_of_a_row_trigger_follow_the_change_that_fired_it():
    """An AFTER ROW trigger runs before the statement's own trigger, which captures."""
    events = [event(1, depth=2), event(2, depth=1)]
    old, new = {1: "v1", 2: "v0"}, {1: "v2", 2: "v1"}

    assert numbers(chained(events, old, new)) == [2, 1]


def test_changes_of_a_before_statement_trigger_stay_first():
    events = [event(1, depth=2), event(2, depth=1)]
    old, new = {1: "v0", 2: "v1"}, {1: "v1", 2: "v2"}

    assert numbers(chained(events, old, new)) == [1, 2]


def test_a_new_row_that_its_trigger_changes():
    events = [event(1, depth=2), event(2, "I")]
    old, new = {1: "v1", 2: None}, {1: "v2", 2: "v1"}

    assert numbers(chained(events, old, new)) == [2, 1]


def test_each_part_of_a_row_is_chained_separately():
    """A parent's trigger writes to parent and child again; captures run in reverse order."""
    events = [
        event(1, depth=2, part=CHILD),
        event(2, depth=2, part=PARENT),
        event(3, depth=1, part=PARENT),
    ]
    old, new = {1: "c0", 2: "p1", 3: "p0"}, {1: "c1", 2: "p2", 3: "p1"}

    assert numbers(chained_by_part(events, old, new)) == [1, 3, 2]


def test_a_row_begins_with_its_insertion_though_a_trigger_changes_its_parent():
    events = [
        event(1, "D", part=CHILD),
        event(2, depth=2, part=PARENT),
        event(3, "I", part=CHILD),
        event(4, depth=2, part=PARENT),
    ]
    old, new = {1: "c0", 2: "p0", 3: None, 4: "p1"}, {1: None, 2: "p1", 3: "c0", 4: "p2"}

    assert numbers(chained_by_part(events, old, new)) == [1, 3, 2, 4]


def test_a_transaction_is_ordered_after_one_that_wrote_between_its_writes():
    """Each part of the row has a lock of its own; what it waited for was before it."""
    events = [
        event(1, part=PARENT, xid=5),
        event(2, part=CHILD, xid=6),
        event(3, part=CHILD, xid=5),
        event(4, key="other", xid=5),
    ]

    assert spans(in_order(events, unchained)) == [("U", 2, 2), ("U", 1, 3), ("U", 4, 4)]


def test_without_a_chain_the_numbers_decide():
    events = [event(1, depth=2), event(2)]

    assert numbers(chained(events, {1: "a", 2: "b"}, {1: "c", 2: "d"})) == [1, 2]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.randoms())
def test_any_shuffled_chain_becomes_one_again(values, random):
    """Values may come back, so several orders may be right: each is a chain."""
    pairs = [(values[i], values[i + 1]) for i in range(len(values) - 1)]
    random.shuffle(pairs)
    events = [event(number, depth=2) for number in range(len(pairs))]
    old = {number: pair[0] for number, pair in enumerate(pairs)}
    new = {number: pair[1] for number, pair in enumerate(pairs)}

    order = numbers(chained(events, old, new))

    assert sorted(order) == list(range(len(pairs)))
    assert all(new[one] == old[other] for one, other in pairwise(order))
