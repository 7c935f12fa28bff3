"""The isolation benchmark computes its latencies correctly and reports every failure."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.isolation import __main__ as command
from benchmarks.isolation.figures import IDLE, Latency, Measured, Phase, parse_calls

ROOT = Path(__file__).resolve().parents[2]


def commits(first, number=20):
    """One commit a second."""
    return {key: float(key) for key in range(first, first + number)}


def run(phases, waited):
    """A run in which each ping of a phase waits as long as ``waited`` says, by queue and title."""
    calls = {
        (queue, key): at + waited[queue, phase.title]
        for phase in phases
        for queue in ("inside", "outside")
        for key, at in phase.commits.items()
        if (queue, phase.title) in waited
    }
    return Measured(phases, calls)


IDLE_FIRST, IDLE_LAST = Phase(IDLE, commits(0)), Phase(IDLE, commits(1000))
HANGS = Phase("hangs", commits(100), misdeeds=3, dead=6)
AS_USUAL = {
    ("inside", IDLE): 0.01,
    ("outside", IDLE): 0.02,
    ("inside", "hangs"): 0.02,
    ("outside", "hangs"): 0.02,
}


def test_percentiles():
    found = Latency.of([n / 100 for n in range(1, 101)])

    assert (found.p50, found.p95) == (pytest.approx(0.505), pytest.approx(0.9595))


def test_the_first_call_of_each_row_counts():
    found = parse_calls(["inside 1 10.5", "outside 1 10.75", "inside 1 11.5", "inside 2 12"])

    assert found == {("inside", 1): 10.5, ("outside", 1): 10.75, ("inside", 2): 12.0}


def test_ratios_are_relative_to_both_idle_phases():
    idle = [IDLE_FIRST, IDLE_LAST]
    calls = {("inside", key): at + 0.01 for key, at in IDLE_FIRST.commits.items()}
    calls |= {("inside", key): at + 0.03 for key, at in IDLE_LAST.commits.items()}
    calls |= {("inside", key): at + 0.06 for key, at in HANGS.commits.items()}
    found = Measured([idle[0], HANGS, idle[1]], calls)

    assert found.idle("inside").p50 == pytest.approx(0.02)
    assert found.ratio("inside", HANGS) == pytest.approx(2.0)
    assert found.ratio("inside", IDLE_FIRST) == pytest.approx(1 / 3)


def test_good_figures_are_no_failure():
    found = run([IDLE_FIRST, HANGS, IDLE_LAST], AS_USUAL | {("inside", "hangs"): 0.0199})

    assert list(found.failures()) == []


def test_a_slow_queue_is_a_failure():
    found = run([IDLE_FIRST, HANGS, IDLE_LAST], AS_USUAL | {("outside", "hangs"): 0.05})

    (failure,) = found.failures()
    assert failure == (
        "hangs: the p95 latency of the queue 'outside' is 2.50 times its idle value, more than 2"
    )


def test_a_bad_call_without_a_dead_letter_is_a_failure():
    hangs = Phase("hangs", commits(100), misdeeds=3, dead=5)
    found = run([IDLE_FIRST, hangs, IDLE_LAST], AS_USUAL | {("inside", "hangs"): 0.01})

    assert list(found.failures()) == ["hangs: 5 of 6 bad calls are dead letters"]


def test_a_lost_event_is_a_failure():
    found = run([IDLE_FIRST, HANGS, IDLE_LAST], AS_USUAL | {("inside", "hangs"): 0.01})
    del found.calls["outside", 107]

    assert list(found.failures()) == ["hangs: the queue 'outside' lost 1 events"]


def test_a_stopped_queue_is_a_failure():
    """It has no latency, which must not pass for a good one."""
    waited = {key: value for key, value in AS_USUAL.items() if key != ("inside", "hangs")}
    found = run([IDLE_FIRST, HANGS, IDLE_LAST], waited)

    assert list(found.failures()) == ["hangs: the queue 'inside' lost 20 events"]
    assert command._cell(found, HANGS, "inside") == "—"


def test_help_has_examples():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.isolation", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python -m benchmarks.isolation --quick" in done.stdout


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_minutes_must_be_positive(minutes, capsys):
    with pytest.raises(SystemExit):
        command.main([f"--minutes={minutes}"])

    assert "is not more than 0" in capsys.readouterr().err
