"""``mypy --strict`` on the public API: it accepts each use and refuses each mistake."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
USES, MISTAKES = (ROOT / "tests" / "typing" / name for name in ("uses.py", "mistakes.py"))


@pytest.fixture(scope="module")
def errors():
    """Each error of mypy as its file, its line and its code."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--show-error-codes",
            "--no-pretty",
            USES,
            MISTAKES,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    pattern = re.compile(r"^(\S+?):(\d+):.* error: .*\[([\w-]+)\]$", re.MULTILINE)
    found = [(ROOT / path, int(line), code) for path, line, code in pattern.findall(done.stdout)]
    assert len(found) == done.stdout.count(" error: "), done.stdout
    return found


def test_mypy_accepts_each_use(errors):
    assert [error for error in errors if error[0] != MISTAKES] == []


def test_mypy_refuses_each_mistake_and_nothing_else(errors):
    lines = enumerate(MISTAKES.read_text().splitlines(), 1)
    wanted = {n: line.partition("# E: ")[2] for n, line in lines if "# E: " in line}
    assert len(wanted) > 20
    assert {line: code for path, line, code in errors if path == MISTAKES} == wanted
