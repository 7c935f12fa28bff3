"""A run of the benchmark of the listener measures and writes files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_measures_and_writes_files(postgres, tmp_path):
    files = tmp_path / "results.json", tmp_path / "results.md"
    written = [f"--json={files[0]}", f"--markdown={files[1]}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.listener", "--quick", "--only=d", *written],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": postgres.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    found = json.loads(files[0].read_text())
    assert {one["section"] for one in found["values"]} == {"d"}
    assert found["comparisons"][0]["subject"] == "captured ÷ without capture"
    assert found["comparisons"][0]["ratio"]["middle"] > 0
    assert "| bulk_create() | captured ÷ without capture | ≤ 1.25 |" in files[1].read_text()
