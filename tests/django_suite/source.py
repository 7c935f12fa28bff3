"""The tests of the Django that is installed: they come with its source, not with its wheel."""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django

from tests.django_suite.errors import SuiteError

CACHE = Path(__file__).parents[2] / "build" / "django_suite"

#: Directories beside the tests that hold none of their own, or none for PostgreSQL alone.
_NO_LABELS = {"gis_tests", "import_error_package", "test_runner_apps"}


def tests_directory():
    """The directory ``tests`` of Django's source; it is downloaded and unpacked once."""
    unpacked = CACHE / f"django-{django.__version__}"
    if not unpacked.exists():
        _unpack(_archive(), unpacked)
    return unpacked / "tests"


def labels_in(tests):
    """The names by which runtests.py knows the parts of the suite."""
    found = (path.parent.name for path in tests.glob("*/__init__.py"))
    return sorted(set(found) - _NO_LABELS)


def _archive():
    CACHE.mkdir(parents=True, exist_ok=True)
    return _downloaded() or _download()


def _downloaded():
    pattern = f"[Dd]jango-{django.__version__}.tar.gz"
    return next(iter(CACHE.glob(pattern)), None)


def _download():
    wanted = f"django=={django.__version__}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "django"]
    pip = subprocess.run(
        [*command, "--dest", str(CACHE), wanted],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = _downloaded()
    if pip.returncode != 0 or found is None:
        said = "\n".join(pip.stdout.strip().splitlines()[-5:])
        raise SuiteError(f"pip could not download the source of {wanted}. It says:\n{said}")
    return found


def _unpack(archive, target):
    """Whole or not at all: a directory that is there is complete."""
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        try:
            with tarfile.open(archive) as source:
                source.extractall(directory, filter="data")
            (root,) = Path(directory).iterdir()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            archive.unlink()
            raise SuiteError(f"{archive.name} cannot be unpacked: {error}") from error
        root.rename(target)
