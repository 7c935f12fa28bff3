"""Settings of the benchmark of other sessions and of memory."""

from benchmarks.settings import *  # noqa: F403

INSTALLED_APPS = ["pgtrigger", "bulksafe", "benchmarks.sessions"]
