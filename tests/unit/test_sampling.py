import itertools

import pytest

from tests import sampling

CASES = {
    f"{row}-{column}": {"row": row, "column": column}
    for row, column in itertools.product(range(30), "abcdef")
}


@pytest.mark.parametrize("step", [1, 2, 3, 6, 50, 10**6])
@pytest.mark.parametrize("start", [0, 1, 10**9])
def test_each_value_of_each_parameter_occurs(step, start):
    chosen = [CASES[case] for case in sampling.sample(CASES, step, start)]

    assert {case["row"] for case in chosen} == set(range(30))
    assert {case["column"] for case in chosen} == set("abcdef")


@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_samples_with_different_starts_cover_the_whole(step):
    taken = [sampling.sample(CASES, step, start) for start in range(step)]

    assert set().union(*taken) == set(CASES)
    for chosen in taken:
        assert len(chosen) < 2 * len(CASES) / step


def test_a_parameter_with_a_value_for_each_case_leaves_none_out():
    cases = {str(number): {"case": number} for number in range(9)}

    assert sampling.sample(cases, 3, 0) == set(cases)
