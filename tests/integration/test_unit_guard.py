"""A test in ``tests/unit`` that needs a server fails."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

NEEDY = """
import pytest

@pytest.mark.django_db
def test_marked():
    pass

def test_with_a_fixture(transactional_db):
    pass

def test_plain():
    pass
"""


def test_a_test_that_needs_one_fails(tmp_path):
    """Under the conftest of that directory."""
    path = tmp_path / "test_needy.py"
    path.write_text(NEEDY)
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.unit.conftest"]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(path)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "1 passed, 2 errors" in done.stdout
