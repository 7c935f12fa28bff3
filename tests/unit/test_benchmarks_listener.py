"""The listener's benchmark computes its ratios right, and ``make bench`` passes its options on."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import together
from benchmarks.listener import __main__ as command
from benchmarks.listener.plan import FULL, QUICK
from benchmarks.results import Results, compared
from benchmarks.timings import Aim, Spread

ROOT = Path(__file__).resolve().parents[2]


ALL = ["benchmarks", "benchmarks.listener", "benchmarks.inline"]


def test_a_ratio_is_computed_round_by_round():
    found = compared("a", "events", "ours ÷ theirs", ([10, 30, 20], [5, 10, 5]), Aim(3, False))

    assert found.ratio == Spread(3, 2, 4)
    assert found.verdict == "reached"


def test_an_unreached_target_is_missed():
    found = compared("b", "p50", "ours ÷ theirs", ([10.0], [2.0]), Aim(3, at_most=True))

    assert found.verdict == "missed"
    assert compared("b", "p50", "noise", ([1.0], [1.0])).verdict == ""


def test_the_best_of_several_is_that_of_each_round():
    results = Results()
    for variant, values in {"one": [1, 9], "other": [5, 2]}.items():
        for value in values:
            results.add("a", "events", variant, value)
    results.add("a", "events, 2 processes", "one", 3)
    results.add("a", "events, 2 processes", "one", 8)

    assert results.best_of("a", ["events"], ["one", "other"]) == [5, 9]
    assert results.best_of("a", ["events", "events, 2 processes"], ["one"]) == [3, 9]
    assert results.mean_of("a", "events", "one", "other") == [3, 5.5]


def test_the_same_note_is_kept_once():
    results = Results()
    results.note("a", "skipped")
    results.note("a", "skipped")

    assert results.notes == {"a": ["skipped"]}


def test_sections_that_do_not_exist_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.parser().parse_args(["--only", "a,x"])

    assert "x is not a section: use a, b, c, d, e, f" in capsys.readouterr().err


def test_options_choose_how_much_is_measured():
    options = command.parser().parse_args(["--quick", "--only", " b, a ", "--rounds", "3"])

    assert options.only == ["a", "b"]
    assert command.plan_of(options).rounds == 3
    assert command.plan_of(options).events == QUICK.events
    assert command.plan_of(command.parser().parse_args([])) == FULL


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ([], ALL),
        (["--quick", "--json=x.json"], ALL),
        (["--rows", "1000"], ["benchmarks"]),
        (["--only", "a"], ALL[1:]),
        (["--only=a", "--rows=10"], []),
    ],
)
def test_make_bench_runs_benchmarks_that_support_the_options(arguments, chosen):
    assert together.modules_for(arguments) == chosen


def test_make_bench_writes_a_file_for_each_benchmark():
    given = ["--json", "out/r.json", "--markdown=r.md", "--quick"]

    assert together.renamed(given, "benchmarks") == given
    assert together.renamed(given, "benchmarks.listener") == [
        "--json",
        "out/r-listener.json",
        "--markdown=r-listener.md",
        "--quick",
    ]
    assert together.renamed(["--json=r.json"], "benchmarks.inline") == ["--json=r-inline.json"]


def test_the_help_needs_no_server():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.together", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "python -m benchmarks.listener --quick" in done.stdout
    assert "python -m benchmarks.inline --quick" in done.stdout
    assert "--rows N,N" in done.stdout
