"""A run of the benchmark of the listener measures and writes files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


#: A comparison that each section makes.
COMPARED = {
    "a": "bulksafe ÷ floor",
    "b": "bulksafe ÷ bare LISTEN/NOTIFY",
    "c": "captured, a listener that sleeps when it begins ÷ without capture",
    "d": "captured ÷ without capture",
    "e": "50,000 events ÷ 5,000 events",
    "f": "--concurrency wait=8 ÷ (concurrency ÷ duration)",
}


@pytest.mark.parametrize("section", COMPARED)
def test_a_run_measures_and_writes_files(section, postgres, tmp_path):
    files = tmp_path / "results.json", tmp_path / "results.md"
    written = [f"--json={files[0]}", f"--markdown={files[1]}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.listener", "--quick", f"--only={section}", *written],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": postgres.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    found = json.loads(files[0].read_text())
    assert {one["section"] for one in found["values"]} == {section}
    compared = [c for c in found["comparisons"] if c["subject"] == COMPARED[section]]
    assert compared
    assert all(c["ratio"]["middle"] > 0 for c in compared)
    assert f"| {COMPARED[section]} |" in files[1].read_text()
