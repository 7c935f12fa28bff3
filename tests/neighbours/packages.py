"""Which packages are installed, and which of their tests are run.

The releases are fixed, so that the known differences are about what is run.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package, and a part of its own tests.

    Attributes:
        name: what ``--package`` calls it.
        distribution: its name on PyPI.
        version: its release.
        settings: the module in ``project`` with the settings of its tests.
        groups: labels of tests; Django's runner is started once for each group.
        depth: how many of the words in a test's dotted name are the name of its part.
        requirements: what its tests import besides.
        processes: how many run its tests at a time.
    """

    name: str
    distribution: str
    version: str
    settings: str
    groups: tuple[tuple[str, ...], ...]
    depth: int
    requirements: tuple[str, ...] = ()
    processes: int = 2


WAGTAIL = Package(
    name="wagtail",
    distribution="wagtail",
    version="8.0.1",
    settings="settings_wagtail",
    groups=(
        (
            "wagtail.documents.tests.test_models",
            "wagtail.images.tests.test_models",
            "wagtail.search",
            "wagtail.tests.test_collection_model",
            "wagtail.tests.test_locale_model",
            "wagtail.tests.test_page_model",
            "wagtail.tests.test_reference_index",
            "wagtail.tests.test_revision_model",
            "wagtail.tests.test_signals",
            "wagtail.tests.test_sites",
            "wagtail.tests.test_translatablemixin",
            "wagtail.tests.test_workflow_model",
        ),
    ),
    depth=3,
    requirements=("Jinja2", "freezegun", "tblib"),
)

#: Its tests depend on their order, and the two groups are not run in one process, as in its own
#: runtests.py: a test of the second declares a model that has no table.
SIMPLE_HISTORY = Package(
    name="simple-history",
    distribution="django-simple-history",
    version="3.13.0",
    settings="settings_simple_history",
    groups=(("simple_history.tests",), ("simple_history.registry_tests",)),
    depth=4,
    processes=1,
)

PACKAGES = {package.name: package for package in (WAGTAIL, SIMPLE_HISTORY)}
