"""The listener's parts, in processes whose calls the benchmarks count."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection

from benchmarks.listener.processes import WorkerError
from bulksafe.dispatch.worker import Worker
from bulksafe.listener.journal import DatabaseJournal
from bulksafe.listener.keeper import Keeper
from bulksafe.listener.serving import Serving
from bulksafe.listener.slots import Places
from bulksafe.listener.watchdog import Watchdog
from bulksafe.listener.worker_process import WorkerProcess

_context = multiprocessing.get_context("fork")


def drain(queue: str) -> None:
    """Be a worker until there is nothing left to do."""

    def serve(watchdog: Watchdog) -> None:
        journal = DatabaseJournal("default", watchdog)
        worker = Worker("default", [queue], journal, guard=watchdog.watch)
        while worker.work() or worker.has_work():
            pass
        journal.close()

    Serving("default").run(serve)


def listen(queue: str, is_over: Callable[[], bool]) -> None:
    """Be the one worker of a listener, whose keeper is another process."""
    places = Places.of({queue: 1})
    deaths, _supervisor = _context.Pipe(duplex=False)
    keeper = _context.Process(target=_keep, args=(places, deaths, os.getpid()))
    keeper.start()

    def must_stop() -> bool:
        # Without a keeper the worker would look once a second, and that would be measured.
        if not keeper.is_alive():
            raise WorkerError("The keeper has ended.")
        return is_over()

    try:
        WorkerProcess(Serving("default", must_stop), places.slots[0], places.bell).run()
    finally:
        keeper.kill()
        keeper.join()


def _keep(places: Places, deaths: Connection, parent: int) -> None:
    serving = Serving("default", lambda: os.getppid() != parent)
    Keeper(serving, places, deaths, once=False).run()
