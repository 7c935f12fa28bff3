"""Fixtures: the wheel, and an environment that has it installed, away from the checkout."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The built wheel. Nothing is downloaded: the build backend is installed already."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    run([*build, "--outdir", directory, CHECKOUT], cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment: the wheel, and what it depends on by reference."""
    directory = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", directory], cwd=directory)
    interpreter = directory / "bin" / "python"
    paths = {"base": str(directory), "platbase": str(directory)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    # Nested path files are not processed, so no editable install is included.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = ["install", "--quiet", "--no-deps", "--no-index", wheel]
    run([sys.executable, "-m", "pip", "--python", interpreter, *install], cwd=directory)
    return interpreter


def clean_environment():
    """The environment without what leads to the checkout."""
    leading = ("PYTHONPATH", "DJANGO_SETTINGS_MODULE")
    found = {key: value for key, value in os.environ.items() if key not in leading}
    return {**found, "PYTHONDONTWRITEBYTECODE": "1"}


def run(command, cwd):
    """Run a command that must succeed, and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
