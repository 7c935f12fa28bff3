"""The listener's health check in ``docker-compose.yml``.

Compose marks a container as unhealthy and leaves it running: ``restart:`` starts it again only when
its process has ended. So where ``/livez`` fails, this ends the listener with SIGKILL, which loses
no event. The exit status is 0 if ``/readyz`` is well.

    python examples/listener_health.py PORT [PARENT]

The listener is the child of the process PARENT: of the first process of a container with
``init: true``. Linux only.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from enum import Enum
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

#: A busy machine may leave one probe unanswered.
ATTEMPTS = 3
SECONDS = 3.0


class Answer(Enum):
    WELL = "well"
    ILL = "ill"
    """503, or no answer on an open connection."""
    CLOSED = "closed"
    """Nothing listens: the process is starting or ending."""


def ask(port: int, probe: str) -> Answer:
    try:
        with urlopen(f"http://127.0.0.1:{port}{probe}", timeout=SECONDS):
            return Answer.WELL
    except (HTTPError, TimeoutError):
        return Answer.ILL
    except URLError as error:
        return Answer.ILL if isinstance(error.reason, TimeoutError) else Answer.CLOSED


def children(parent: int) -> list[int]:
    """The processes whose parent is ``parent``, without this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            # "PID (name) state PPID …", where the name may hold anything
            _, ppid, *_ = path.read_text().rpartition(")")[2].split()
            if int(ppid) == parent and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def main(port: int, parent: int = 1) -> int:
    answers = {ask(port, "/livez") for _ in range(ATTEMPTS)}
    if answers == {Answer.ILL}:
        for pid in children(parent):
            os.kill(pid, signal.SIGKILL)
        return 1
    return 0 if ask(port, "/readyz") is Answer.WELL else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
