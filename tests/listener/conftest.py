"""Sites with listeners on the server of the test run."""

import pytest

from tests.listener.site import Site
from tests.migration.conftest import databases, forge  # noqa: F401


@pytest.fixture
def site(tmp_path, forge, databases):  # noqa: F811
    return Site(tmp_path / "site", forge, databases)
