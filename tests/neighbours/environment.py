"""A virtual environment with the packages, and their sources, in which their tests are."""

import subprocess
import sys
from pathlib import Path

import django

from tests.django_suite import source
from tests.django_suite.errors import SuiteError
from tests.neighbours.packages import PACKAGES

DEFAULT_FOLDER = Path(__file__).parents[2] / "build" / "neighbours"

_LINES_OF_PIP = 15


def python_in(folder):
    """The interpreter of the environment, which is created and filled once.

    It has the Django of this process, all packages, and what bulksafe needs. bulksafe itself is
    this checkout.

    Raises:
        SuiteError: it cannot be created, or pip cannot install something.
    """
    place = (
        folder / f"django-{django.__version__}-python-{sys.version_info[0]}.{sys.version_info[1]}"
    )
    python, installed = place / "bin" / "python", place / "installed.txt"
    wanted = "\n".join(_requirements())
    if not installed.exists() or installed.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        _run([str(python), "-m", "pip", "install", "--quiet", *_requirements()])
        installed.write_text(wanted)
    return python


def source_of(package, folder):
    """The directory of a package's source, which has its tests."""
    return source.unpacked(package.distribution, package.version, folder)


def _requirements():
    found = [f"Django=={django.__version__}", "django-pgtrigger>=4.17,<5", "psycopg[binary]"]
    for package in PACKAGES.values():
        found += [f"{package.distribution}=={package.version}", *package.requirements]
    return found


def _run(command):
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-_LINES_OF_PIP:])
        raise SuiteError(f"“{' '.join(command)}” has failed. It says:\n{said}")
