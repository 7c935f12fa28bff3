"""Workers in processes of their own, forked, so that starting them is not timed."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.db import connections

from benchmarks.listener.receivers import calls

_context = multiprocessing.get_context("fork")

#: Seconds after which a worker that says nothing is given up.
PATIENCE = 1800.0


@dataclass
class Outcome:
    """What a worker reports at its end.

    Attributes:
        calls: how often a receiver was called.
        finished: when it was done, as ``time.monotonic()``, which all processes share.
        peak_kib: the most memory that it held.
        times: when the receivers were called, if that was asked for.
    """

    calls: int
    finished: float
    peak_kib: int
    times: list[float]


class WorkerError(RuntimeError):
    """A worker ended with an error."""


class Forked:
    """One worker. It prepares itself, waits for ``go``, works, and reports.

    Args:
        work: called in the worker; returns when there is nothing left to do.
        prepare: called before; not timed.
        record_times: whether the receivers' calls are timed.
    """

    def __init__(
        self,
        work: Callable[[], Any],
        prepare: Callable[[], Any] = lambda: None,
        *,
        record_times: bool = False,
    ) -> None:
        connections.close_all()
        self._ours, theirs = _context.Pipe()
        self.process = _context.Process(target=_run, args=(work, prepare, record_times, theirs))
        self.process.start()
        theirs.close()
        self._receive()

    def go(self) -> None:
        self._ours.send("go")

    def outcome(self) -> Outcome:
        """Wait for the end of the work."""
        found: Outcome = self._receive()
        self.process.join()
        return found

    def terminate(self) -> Outcome:
        """Send SIGTERM, which ends a listener after its batch."""
        self.process.terminate()
        return self.outcome()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _receive(self) -> Any:
        if not self._ours.poll(PATIENCE):
            self.kill()
            raise WorkerError("A worker has not answered for half an hour.")
        try:
            found = self._ours.recv()
        except EOFError:
            raise WorkerError("A worker ended without a word.") from None
        if isinstance(found, str) and found != "ready":
            raise WorkerError(found)
        return found


def _run(
    work: Callable[[], Any], prepare: Callable[[], Any], record_times: bool, pipe: Any
) -> None:
    try:
        calls.number, calls.times = 0, [] if record_times else None
        prepare()
        pipe.send("ready")
        pipe.recv()
        work()
        finished = monotonic()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pipe.send(Outcome(calls.number, finished, peak, calls.times or []))
    except BaseException as error:
        pipe.send("".join(traceback.format_exception_only(error)).strip())
        if os.environ.get("BENCHMARK_TRACEBACKS"):
            traceback.print_exc()
    finally:
        pipe.close()
        sys.stdout.flush()
        os._exit(0)  # without what the parent registered for its own end


def run_together(
    number: int, work: Callable[[], Any], prepare: Callable[[], Any] = lambda: None
) -> tuple[float, list[Outcome]]:
    """Let ``number`` workers start at once.

    Returns:
        the seconds until the last one was done, and what they report.
    """
    workers: list[Forked] = []
    try:
        workers += [Forked(work, prepare) for _ in range(number)]
        start = monotonic()
        for worker in workers:
            worker.go()
        found = [worker.outcome() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return max(one.finished for one in found) - start, found


@contextmanager
def running(workers: Sequence[Forked]) -> Iterator[None]:
    """Let the workers work for the length of a block, and end them."""
    for worker in workers:
        worker.go()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
