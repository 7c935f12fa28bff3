"""Stops a worker whose supervisor was killed: nothing else would end its call."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from bulksafe.listener.children import GRACE, LEAVING

if TYPE_CHECKING:
    from bulksafe.dispatch.activity import Activity

logger = logging.getLogger("bulksafe")

#: Seconds between two checks.
_STEP = 1.0


def outlive(parent: int, activity: Activity) -> None:
    """Start a thread that enforces the limits of this process once its supervisor is gone.

    Args:
        parent: the supervisor's process.
        activity: the activity of this process.
    """
    thread = threading.Thread(
        target=_run, args=(parent, activity), name="bulksafe orphan", daemon=True
    )
    thread.start()


def _run(parent: int, activity: Activity) -> None:
    while os.getppid() == parent or not _is_overdue(activity):
        time.sleep(_STEP)
    logger.warning("the supervisor is gone, and this worker did not stop in time: killing it")
    os.kill(os.getpid(), signal.SIGKILL)


def _is_overdue(activity: Activity) -> bool:
    call = activity.running()
    if call is not None:
        return call.seconds > call.timeout + GRACE
    return bool(activity.finished) and time.monotonic() - activity.finished > LEAVING
