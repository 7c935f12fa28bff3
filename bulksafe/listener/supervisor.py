"""The parent process: starts the keeper and the workers, and kills hanging ones.

It has no connection and runs no receiver, so nothing can block it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from django.db import connections

from bulksafe.dispatch.activity import RunningCall
from bulksafe.listener.children import Child
from bulksafe.listener.keeper import Keeper
from bulksafe.listener.orphans import outlive
from bulksafe.listener.serving import SIGNALS, Serving
from bulksafe.listener.slots import Bell, Death, Places, Slot
from bulksafe.listener.worker_process import WorkerProcess

logger = logging.getLogger("bulksafe")

#: Seconds between two checks of the workers.
_STEP = 0.1
#: Seconds between two signals to a worker that must abandon its call.
_AGAIN = 1.0
#: Seconds before a process that exited by itself is replaced.
_PAUSE = 1.0
#: Seconds that the keeper may take to store the call in which a process died, before it is
#: replaced.
_SETTLING = 5.0

# Forked: the project is loaded once, and no connection is open at that moment.
_context = multiprocessing.get_context("fork")


class CannotStart(Exception):  # noqa: N818
    """The machine cannot start all processes."""


class Supervisor:
    """Runs a listener: a keeper, and the workers of each queue.

    Args:
        using: the database.
        concurrency: the number of workers of each queue.
        once: end when no work is left.
        max_memory: memory limit of a worker in bytes; larger workers are replaced.

    Raises:
        CannotStart: too few files may be open.
    """

    def __init__(
        self,
        using: str,
        concurrency: Mapping[str, int],
        *,
        once: bool = False,
        max_memory: int | None = None,
    ) -> None:
        try:
            self.places = Places.of(concurrency)
        except OSError as error:
            raise CannotStart(str(error)) from error
        self.beat = time.time()
        self._using = using
        self._once = once
        self._max_memory = max_memory
        self._deaths, self._keepers_end = _context.Pipe()
        self._died = 0
        self._delivered = 0
        self._failed = 0
        self._signals = 0
        self._keeper: Child | None = None
        self._workers: list[Child] = []

    def run(self, started: Callable[[], None] = lambda: None) -> int:
        """Supervise the processes until signalled to stop, or with ``once`` until no work is left.

        Args:
            started: called once the first processes run.

        Returns:
            the number of failed calls.
        """
        connections.close_all()
        for connection in connections.all(initialized_only=True):
            # A pool's threads do not survive a fork, and its sockets must not be shared.
            if connection.vendor == "postgresql":
                connection.close_pool()  # type: ignore[attr-defined]
        with self._handled_signals():
            self._start_all()
            started()
            while not self._signals and not self.places.shared.is_done:
                self._wait(_STEP)
                self._look()
            self._stop()
        plural = "" if self._delivered == 1 else "s"
        logger.info("stopped after %d call%s", self._delivered, plural)
        return self._failed

    def is_alive(self, slot: Slot) -> bool:
        """Whether the slot has a process."""
        return any(child.slot is slot and child.is_alive for child in self._workers)

    # Starting and ending.

    def _start_all(self) -> None:
        """Start the first processes.

        Raises:
            CannotStart: the machine cannot start them all. Those that were started are gone again:
                without a supervisor, nothing would limit their calls.
        """
        try:
            self._keeper = self._start_keeper()
            for slot in self.places.slots:
                self._workers.append(self._start_worker(slot))
        except OSError as error:
            for child in self._children():
                child.send(signal.SIGKILL)
                child.process.join()
            raise CannotStart(str(error)) from error

    def _start_keeper(self) -> Child:
        common = self._using, os.getpid()
        arguments = *common, self.places, self._keepers_end, self._once
        return _start(_context.Process(target=_keep, args=arguments, name="keeper"), None)

    def _start_worker(self, slot: Slot) -> Child:
        arguments = self._using, os.getpid(), slot, self.places.bell
        return _start(_context.Process(target=_work, args=arguments, name=slot.queue), slot)

    def _wait(self, seconds: float) -> None:
        sentinels = [child.process.sentinel for child in self._children() if child.is_alive]
        wait(sentinels, timeout=seconds)
        self.beat = time.time()

    def _children(self) -> list[Child]:
        return [*self._workers, *([self._keeper] if self._keeper else [])]

    def _stop(self) -> None:
        """Stop the workers first: the keeper stores the calls that they abandon."""
        for child in self._workers:
            child.ask_to_stop()
        passed_on = 0.0
        while any(child.is_alive for child in self._workers):
            self._wait(_STEP)
            if self._signals > 1 and time.monotonic() - passed_on > _AGAIN:
                # Repeatedly: of two pending signals, a process handles only one.
                passed_on = time.monotonic()
                for child in self._workers:
                    child.send(signal.SIGTERM)
            for child in self._workers:
                child.limit_time()
                child.limit_leaving()
        for child in self._workers:
            self._settle(child)
        if self._keeper:
            self._keeper.send(signal.SIGTERM)
            self._keeper.process.join()

    @contextmanager
    def _handled_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            # call_command() in a thread: the signals belong to the host process.
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1:
            logger.info("%s: finishing the batches and calls that run", signal.Signals(number).name)

    # Supervising.

    def _look(self) -> None:
        for index, child in enumerate(self._workers):
            child.limit_time()
            child.limit_leaving()
            if self._max_memory is not None:
                child.limit_memory(self._max_memory)
            if not child.is_alive and child.slot is not None and self._may_replace(child):
                self._workers[index] = _replaced(child, partial(self._start_worker, child.slot))
        keeper = self._keeper
        is_gone = keeper is not None and not keeper.is_alive and not self.places.shared.is_done
        if keeper is not None and is_gone and self._may_replace(keeper):
            self._keeper = _replaced(keeper, self._start_keeper)

    def _may_replace(self, child: Child) -> bool:
        """Whether a process that has ended may be replaced now."""
        now = time.monotonic()
        if child.ended is None:
            child.ended = now
            self._settle(child)
            logger.warning("%s: %s; it is replaced", child.name, child.how_it_ended)
        if child.slot is not None and self.places.shared.settled < child.deaths:
            return now - child.ended > _SETTLING
        is_quick = child.ended - child.started < _PAUSE
        return now - child.ended > (_PAUSE if is_quick else 0.0)

    def _settle(self, child: Child) -> None:
        """Count the calls of an ended process, and let the keeper store the call it died in."""
        if child.slot is None:
            return
        activity = child.slot.activity
        self._delivered += activity.delivered
        self._failed += activity.failed
        call = activity.running()
        if call or activity.parked:
            # A second signal abandons the call, which does not count as an attempt.
            error = "" if self._signals > 1 else child.how_it_ended
            if error and call and call.seq:
                logger.warning(
                    "receiver %s failed (attempt %d) for the row %s: %s",
                    *(call.receiver, call.attempt, call.key, error),
                )
            self._failed += 1
            self._died += 1
            child.deaths = self._died
            self._deaths.send(_death(self._died, child.slot, call, error))
            self.places.bell.ring()
        activity.delivered = activity.failed = 0
        activity.is_idle = False
        activity.end()
        activity.leave()


def _replaced(child: Child, start: Callable[[], Child]) -> Child:
    """A new process for an ended one; the old one if the machine cannot start it now.

    The supervisor must not exit then: it would wait for its other processes for ever.
    """
    try:
        return start()
    except OSError as error:
        logger.warning("%s cannot be replaced now (%s): trying again", child.name, error)
        child.started = child.ended = time.monotonic()
        return child


def _death(number: int, slot: Slot, call: RunningCall | None, error: str) -> Death:
    activity = slot.activity
    where = (call.receiver, call.bucket, call.seq) if call else ("", 0, 0)
    lease = activity.parked, activity.epoch, activity.attempt
    return Death(number, slot.queue, error, *lease, *where)


def _start(process: BaseProcess, slot: Slot | None) -> Child:
    with _no_signals():
        process.start()
    return Child(process, slot, time.monotonic())


@contextmanager
def _no_signals() -> Iterator[None]:
    """Block signals during the block.

    Otherwise a child just forked would run the supervisor's handler.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep(using: str, parent: int, places: Places, deaths: Connection, once: bool) -> None:
    serving = _serving(using, lambda: os.getppid() != parent)
    Keeper(serving, places, deaths, once=once).run()


def _work(using: str, parent: int, slot: Slot, bell: Bell) -> None:
    serving = _serving(using, lambda: os.getppid() != parent or slot.activity.must_stop)
    outlive(parent, slot.activity)
    WorkerProcess(serving, slot, bell).run()


def _serving(using: str, must_stop: Callable[[], bool]) -> Serving:
    # Ctrl-C is for the supervisor, which forwards it.
    os.setpgid(0, 0)
    serving = Serving(using, must_stop)
    serving.handle_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return serving
