"""The benchmark measures what it says, and computes its ratios right. No test looks at a time."""

import pytest

from benchmarks import variants
from benchmarks.comparing import ADDED, BELOW_NOISE, WHOLE, comparisons
from benchmarks.timings import Spread, Timings, added_ratio, ratio, unpaired_ratio


def timings(rows, operation, **rounds):
    found = Timings()
    for variant, values in rounds.items():
        for value in values:
            found.add(rows, operation, variant.replace("_", "-"), value)
    return found


def merged(*parts):
    return Timings({key: values for part in parts for key, values in part.values.items()})


def picked(found, **wanted):
    """The one comparison with these attributes."""
    (one,) = [c for c in found if all(getattr(c, name) == w for name, w in wanted.items())]
    return one


def near(spread, *expected):
    return (spread.middle, spread.low, spread.high) == pytest.approx(expected)


TIMES = {
    "none": [10.0, 20.0, 10.0],
    "none_again": [10.0, 22.0, 10.0],
    "bulksafe": [12.0, 25.0, 12.0],
    "bulksafe_checks": [10.0, 21.0, 11.0],
    "bulksafe_observed": [10.0, 21.0, 11.0],
    "hand_functions": [16.0, 33.0, 16.0],
    "hand_conditions": [12.5, 25.5, 12.5],
}


@pytest.fixture
def small():
    """Three rounds, the second on a machine that is twice as slow."""
    return merged(
        *(timings(100, operation, **TIMES) for operation in variants.BULK_OPERATIONS),
        timings(100, variants.SAVE_INSERT, signals=[400.0, 800.0, 450.0]),
        timings(100, variants.SAVE_UPDATE, signals=[400.0, 800.0, 100.0]),
    )


@pytest.fixture
def both(small):
    """And a size ten times as large, on which everything but the plain table costs more."""
    larger = {variant: [2 * value for value in values] for variant, values in TIMES.items()}
    larger |= {"none": TIMES["none"], "none_again": TIMES["none"]}
    return merged(small, *(timings(1000, op, **larger) for op in variants.BULK_OPERATIONS))


def test_ratio_is_taken_round_by_round():
    assert near(ratio([2.0, 30.0, 3.0], [1.0, 10.0, 2.0]), 2.0, 1.5, 3.0)


def test_ratio_of_different_rounds_spans_both_extremes():
    assert near(unpaired_ratio([4.0, 6.0], [1.0, 2.0, 3.0]), 2.5, 4 / 3, 6.0)


def test_added_ratio_is_that_of_the_medians():
    assert near(added_ratio([4.0, 8.0, 6.0], [2.0, 1.0, 3.0]), 3.0, 2.0, 8.0)


def test_added_ratio_of_a_round_without_any_added_cost_is_unbounded():
    assert added_ratio([4.0, 8.0, 6.0], [2.0, -1.0, 3.0]) == Spread(3.0, 2.0, float("inf"))


def test_rounds_that_do_not_match_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_overhead_is_against_the_mean_of_both_controls(small):
    found = comparisons(small)
    one = picked(found, section="a", operation="bulk_create", subject="five invariants")
    assert near(one.ratio, 12 / 10, 25 / 21, 12 / 10)
    assert (one.measure, str(one.aim), one.verdict) == (WHOLE, "≤ 1.1", "missed")
    checks = picked(found, section="a", operation="bulk_create", subject="four, no Compute")
    assert near(checks.ratio, 1.0, 1.0, 1.1)
    assert checks.verdict == "reached"


def test_control_has_no_aim_and_no_verdict(small):
    one = picked(
        comparisons(small), section="a", operation="bulk_create", subject="no rules, again"
    )
    assert near(one.ratio, 1.0, 1.0, 1.1)
    assert (one.aim, one.verdict) == (None, "")


def test_handwritten_triggers_are_compared_by_added_cost_and_by_whole_statement(small):
    found = comparisons(small)
    slow = {"section": "b", "operation": "bulk_create", "subject": "pgtrigger, func"}
    # Added: 6, 12, 6 against 2, 4, 2.
    of_added = picked(found, **slow, measure=ADDED)
    assert near(of_added.ratio, 3.0, 3.0, 3.0)
    assert (str(of_added.aim), of_added.verdict) == ("≥ 1.3", "reached")
    whole = picked(found, **slow, measure=WHOLE)
    assert near(whole.ratio, 16 / 12, 33 / 25, 16 / 12)
    assert whole.verdict == ""


def test_handwritten_triggers_that_are_not_slower_enough_miss_the_aim(small):
    one = picked(
        comparisons(small),
        section="b",
        operation="bulk_create",
        subject="pgtrigger, Q",
        measure=ADDED,
    )
    # Added: 2.5, 4.5, 2.5 against 2, 4, 2.
    assert near(one.ratio, 1.25, 1.125, 1.25)
    assert one.verdict == "missed"


def test_added_cost_within_the_noise_gives_no_ratio(small):
    noisy = TIMES | {"none_again": [16.0, 28.0, 20.0], "bulksafe": [14.0, 25.0, 16.0]}
    # Controls 6, 8 and 10 apart; bulksafe adds 1.
    found = comparisons(merged(small, timings(100, "bulk_create", **noisy)))
    one = picked(
        found, section="b", operation="bulk_create", subject="pgtrigger, func", measure=ADDED
    )
    assert (one.ratio, one.verdict) == (None, BELOW_NOISE)


def test_save_is_compared_with_the_bulk_write_of_the_same_kind(small):
    found = [c for c in comparisons(small) if c.section == "c"]
    assert {c.operation for c in found} == {"bulk_create", "update-input"}
    insert = picked(found, operation="bulk_create")
    assert near(insert.ratio, 400 / 12, 800 / 25, 450 / 12)
    assert (str(insert.aim), insert.verdict) == ("≥ 30", "reached")
    assert near(picked(found, operation="update-input").ratio, 800 / 25, 100 / 12, 400 / 12)


def test_save_at_the_larger_size_is_scaled_from_the_smaller_and_says_so(both):
    one = picked(comparisons(both), section="c", operation="bulk_create", rows=1000)
    assert one.subject == "save() of new rows, scaled from 100"
    # 400, 800, 450 against 24, 50, 24, of different rounds.
    assert near(one.ratio, 450 / 24, 400 / 50, 800 / 24)


def test_growth_is_reported_whole_and_added(both):
    found = [c for c in comparisons(both) if c.section == "d" and c.operation == "bulk_create"]
    assert {c.rows for c in found} == {1000}
    none = picked(found, subject="no rules")
    assert none.ratio.middle == 1.0
    assert none.verdict == ""
    whole = picked(found, subject="five invariants", measure=WHOLE)
    assert near(whole.ratio, 2.0, 24 / 25, 50 / 12)
    assert (str(whole.aim), whole.verdict) == ("≤ 1.1", "missed")
    # Added: 14, 30, 14 against 2, 4, 2.
    assert near(picked(found, measure=ADDED).ratio, 7.0, 3.5, 15.0)


def test_one_size_gives_no_growth(small):
    assert not [c for c in comparisons(small) if c.section == "d"]
