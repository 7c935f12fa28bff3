"""Settings of the benchmark of receivers in the writer's transaction."""

from benchmarks.settings import *  # noqa: F403

INSTALLED_APPS = ["pgtrigger", "bulksafe", "benchmarks.inline"]
