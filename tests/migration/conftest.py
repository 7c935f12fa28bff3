"""Projects on databases of their own, on the server of the test run."""

import itertools
import os

import pytest

from tests.migration.project import Databases, Forge, Project

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def forge():
    started = Forge()
    yield started
    started.close()


@pytest.fixture
def databases(postgres):
    made = Databases(postgres.url)
    yield made
    made.drop()


@pytest.fixture
def project(tmp_path, forge, databases):
    """An empty project on an empty database."""
    return Project(tmp_path / "site", forge, databases, f"migrating_{os.getpid()}_{next(_numbers)}")
