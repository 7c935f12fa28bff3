"""Running the benchmarks as commands."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python(postgres, settings, *arguments):
    """Run Python with the settings of a benchmark, on the server of the tests."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": postgres.url, "DJANGO_SETTINGS_MODULE": settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,  # for a run that hangs, however busy the machine is
    )
