"""The benchmark of receivers in the writer's transaction measures what it says."""

import pytest

from benchmarks.inline import __main__ as command
from benchmarks.inline.plan import FULL, QUICK
from benchmarks.inline.undisturbed import undisturbed
from benchmarks.options import turned


def test_options_choose_how_much_is_measured():
    options = command.parser().parse_args(["--quick", "--only", " b, a ", "--rounds", "3"])

    assert options.only == ["a", "b"]
    assert command.plan_of(options).rounds == 3
    assert command.plan_of(options).rows == QUICK.rows
    assert command.plan_of(command.parser().parse_args([])) == FULL


def test_sections_that_do_not_exist_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.parser().parse_args(["--only", "x"])

    assert "x is not a section: use a, b, c, d, e, f" in capsys.readouterr().err


def test_each_round_begins_with_a_different_variant():
    assert [turned(["a", "b", "c"], number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_disturbing_a_quarter_of_the_calls_changes_no_figure():
    assert undisturbed([2.0] * 9 + [50.0] * 3) == undisturbed([2.0] * 12) == 2.0
