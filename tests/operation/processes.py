"""Listener processes, and helpers that wait for their effects."""

import subprocess
import sys
import time
from contextlib import contextmanager

from tests.migration.project import environment

#: Seconds after which a test gives up; nothing that is waited for takes a tenth of it, unless the
#: machine is very busy.
PATIENCE = 120


@contextmanager
def listening(project, *arguments, name="listener.log", **variables):
    """A daemon of the project, ended with the block; yields its process and its log's path."""
    project.write_settings()
    log = project.directory / name
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "bulksafe", "listen", *arguments],
            cwd=project.directory,
            env=environment(**variables),
            stderr=output,
        )
    try:
        yield process, log
    except BaseException:
        process.kill()  # what has gone wrong is not to be hidden by what comes after
        process.wait()
        raise
    else:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the listener did not end:\n{log.read_text()}") from None


def wait_until(condition, log=None):
    """Poll until ``condition()`` is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(log.read_text() if log else "the condition did not come true")
        time.sleep(0.02)
