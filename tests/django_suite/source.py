"""The sources of releases: tests come with a release's source, not always with its wheel."""

import re
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

_SUFFIX = ".tar.gz"


def tests_directory():
    """The directory ``tests`` of the source of the Django that is installed."""
    return unpacked("django", django.__version__, CACHE) / "tests"


def labels_in(tests):
    """The names of the suite's parts in runtests.py."""
    found = (path.parent.name for path in tests.glob("*/__init__.py"))
    return sorted(set(found) - _NO_LABELS)


def unpacked(name, version, cache):
    """The directory of a release's source; it is downloaded and unpacked once.

    Raises:
        SuiteError: pip could not download it, or it cannot be unpacked.
    """
    target = cache / f"{name}-{version}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        archive = _downloaded(name, version, cache) or _download(name, version, cache)
        _unpack(archive, target)
    return target


def _downloaded(name, version, cache):
    """The archive, whose name is spelt as the release's build backend likes."""
    wanted = _normalised(f"{name}-{version}")
    found = (path for path in cache.glob(f"*{_SUFFIX}"))
    return next((p for p in found if _normalised(p.name.removesuffix(_SUFFIX)) == wanted), None)


def _normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _download(name, version, cache):
    wanted = f"{name}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", name]
    pip = subprocess.run(
        [*command, "--dest", str(cache), wanted],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = _downloaded(name, version, cache)
    if pip.returncode != 0 or found is None:
        said = "\n".join(pip.stdout.strip().splitlines()[-5:])
        raise SuiteError(f"pip could not download the source of {wanted}. It says:\n{said}")
    return found


def _unpack(archive, target):
    """Unpacks atomically: an existing directory is complete."""
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        try:
            with tarfile.open(archive) as source:
                source.extractall(directory, filter="data")
            (root,) = Path(directory).iterdir()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            archive.unlink()
            raise SuiteError(f"{archive.name} cannot be unpacked: {error}") from error
        root.rename(target)
