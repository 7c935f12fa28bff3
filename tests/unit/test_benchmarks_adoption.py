"""The command line of the benchmark of verify and backfill."""

import pytest

from benchmarks import adoption


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as raised:
        adoption.main(["--help"])

    assert raised.value.code == 0
    assert "python -m benchmarks.adoption --rows 50000" in capsys.readouterr().out


def test_what_is_not_as_expected_is_a_failure():
    found = adoption.Figures()
    found.expect(True, "is not said")
    found.expect(False, "2 deadlocks")

    assert found.failures == ["2 deadlocks"]
