"""Settings of the listener's benchmark: with those of the other libraries that are installed."""

import os
from importlib.util import find_spec

from benchmarks.settings import *  # noqa: F403
from examples import server

# A listener that runs as a separate command gets the database from the environment.
if url := os.environ.get("BENCHMARK_DATABASE"):
    DATABASES = {"default": server.database_settings(url)}
INSTALLED_APPS = ["pgtrigger", "bulksafe", "benchmarks.listener"]
if find_spec("procrastinate"):
    INSTALLED_APPS.append("procrastinate.contrib.django")
if find_spec("pgpubsub"):
    INSTALLED_APPS.append("pgpubsub")
