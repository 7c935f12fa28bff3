"""What the settings of all packages share."""

import multiprocessing
import os

from examples import server

#: Whether bulksafe is installed, and the receivers of the packages are critical ones.
IS_CRITICAL = os.environ.get("NEIGHBOURS_RUN") == "critical"

#: They come last: the packages have connected their receivers when ``neighbour`` is ready.
CRITICAL_APPS = ["neighbour", "pgtrigger", "bulksafe"] if IS_CRITICAL else []

TEST_RUNNER = "runner.Runner"

# Where Python has another default, Django's runner refuses several processes.
multiprocessing.set_start_method("fork", force=True)


def database(name):
    settings = server.database_settings(os.environ["DATABASE_URL"])
    suffix = "critical" if IS_CRITICAL else "plain"
    return {**settings, "TEST": {"NAME": f"test_neighbours_{name}_{suffix}"}}
