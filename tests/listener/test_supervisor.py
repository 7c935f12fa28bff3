"""The supervisor process, terminated at an awkward moment."""

import os
import signal

from tests.listener.site import wait_until


def test_terminated_while_a_worker_is_replaced(site):
    """The new worker is terminated, too, although it started after the signal."""
    site.write(
        "sitecustomize.py",
        """
        import os, signal
        from multiprocessing.context import ForkProcess

        start, started = ForkProcess.start, []

        def start_and_signal(process):
            start(process)
            started.append(process)
            if len(started) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        ForkProcess.start = start_and_signal
        """,
    )
    path = f"{site.directory}:{site.environment()['PYTHONPATH']}"
    listener = site.start("--queues", "default", PYTHONPATH=path)
    try:
        site.wait_until_listening(listener)
        os.kill(listener.workers()[0], signal.SIGKILL)
        assert listener.wait() == 0
        wait_until(lambda: "it is replaced" in listener.said, "no worker was replaced")
        assert "Traceback" not in listener.said
    finally:
        listener.stop()
