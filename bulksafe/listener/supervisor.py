"""The parent process: starts the keeper and the workers, and kills those that hang.

It has no connection and runs no receiver, so that nothing can block it.
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
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from django.db import connections

from bulksafe.dispatch.activity import RunningCall
from bulksafe.listener.keeper import Keeper
from bulksafe.listener.memory import resident_bytes
from bulksafe.listener.serving import SIGNALS, Serving
from bulksafe.listener.slots import Bell, Death, Places, Slot
from bulksafe.listener.worker_process import ALARM, WorkerProcess

logger = logging.getLogger("bulksafe")

#: Seconds between two looks at the workers.
_STEP = 0.1
#: Seconds before a process that ended by itself is replaced.
_PAUSE = 1.0
#: Seconds that a call has to end, after it was asked to, before its process is killed.
_GRACE = 3.0
#: Seconds after which a running call is named in the log.
_LONG = 10.0
#: Seconds that the keeper may take to note what a process died in, before that is replaced.
_SETTLING = 5.0

# Forked: the project is loaded once, and no connection is open at that moment.
_context = multiprocessing.get_context("fork")


@dataclass
class _Child:
    """One process.

    Attributes:
        slot: the worker's place; None for the keeper.
        started, ended: as ``time.monotonic()``.
        cause: why it was killed, if it was.
        named: the long call that was logged last.
        alarmed: the call that was interrupted last.
        first_seen: its current call, and the memory that the process held when that was first seen.
        asked: when it was asked to stop, as ``time.monotonic()``.
        deaths: the number of the death that was sent to the keeper.
    """

    process: BaseProcess
    slot: Slot | None
    started: float
    ended: float | None = None
    cause: str = ""
    named: int = 0
    alarmed: int = 0
    first_seen: tuple[int, int] = (0, 0)
    asked: float | None = None
    deaths: int = 0

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def end(self) -> None:
        """Ask it to stop after its current call. Only once: a second SIGTERM abandons the call."""
        if self.asked is None:
            self.asked = time.monotonic()
            self.send(signal.SIGTERM)

    def is_overdue(self) -> bool:
        """Whether it still runs although it was asked to stop a while ago."""
        return self.asked is not None and time.monotonic() - self.asked > _GRACE

    def send(self, number: int) -> None:
        # The id of a process that was waited for may belong to a different process by now.
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)


class Supervisor:
    """Runs a listener: a keeper, and the workers of each queue.

    Args:
        using: the database.
        concurrency: how many workers each queue has.
        once: end when there is nothing left to do.
        max_memory: bytes that a worker may hold; one that holds more is replaced.
    """

    def __init__(
        self,
        using: str,
        concurrency: Mapping[str, int],
        *,
        once: bool = False,
        max_memory: int | None = None,
    ) -> None:
        self.places = Places.of(concurrency)
        self.beat = time.time()
        self._using = using
        self._once = once
        self._max_memory = max_memory
        self._deaths, self._keepers_end = _context.Pipe()
        self._died = 0
        self._delivered = 0
        self._failed = 0
        self._signals = 0
        self._keeper: _Child | None = None
        self._workers: list[_Child] = []

    def run(self, started: Callable[[], None] = lambda: None) -> int:
        """Supervise the processes until signalled to stop, or with ``once`` until no work is left.

        Args:
            started: called when the first processes run.

        Returns:
            how many calls failed.
        """
        connections.close_all()
        for connection in connections.all(initialized_only=True):
            # A pool's threads do not live on in a fork, and its sockets must not be shared.
            if connection.vendor == "postgresql":
                connection.close_pool()  # type: ignore[attr-defined]
        with self._handled_signals():
            self._keeper = self._start_keeper()
            self._workers = [self._start_worker(slot) for slot in self.places.slots]
            started()
            while not self._signals and not self.places.shared.is_done:
                self._wait(_STEP)
                self._look()
            self._stop()
        logger.info("stopped after %d calls", self._delivered)
        return self._failed

    def is_alive(self, slot: Slot) -> bool:
        """Whether there is a process in the place."""
        return any(child.slot is slot and child.is_alive for child in self._workers)

    # Starting and ending.

    def _start_keeper(self) -> _Child:
        common = self._using, os.getpid()
        arguments = *common, self.places, self._keepers_end, self._once
        return _start(_context.Process(target=_keep, args=arguments, name="keeper"), None)

    def _start_worker(self, slot: Slot) -> _Child:
        arguments = self._using, os.getpid(), slot, self.places.bell
        return _start(_context.Process(target=_work, args=arguments, name=slot.queue), slot)

    def _wait(self, seconds: float) -> None:
        sentinels = [child.process.sentinel for child in self._children() if child.is_alive]
        wait(sentinels, timeout=seconds)
        self.beat = time.time()

    def _children(self) -> list[_Child]:
        return [*self._workers, *([self._keeper] if self._keeper else [])]

    def _stop(self) -> None:
        """Stop the workers first: the keeper stores the calls that they abandon."""
        for child in self._workers:
            child.end()
        passed_on = 1
        while any(child.is_alive for child in self._workers):
            self._wait(_STEP)
            if self._signals > 1 and passed_on == 1:
                passed_on = 2
                for child in self._workers:
                    child.send(signal.SIGTERM)
            for child in self._workers:
                self._end_what_takes_too_long(child)
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
            logger.info("%s: finishing the batches", signal.Signals(number).name)

    # Looking after.

    def _look(self) -> None:
        for index, child in enumerate(self._workers):
            self._end_what_takes_too_long(child)
            self._end_what_grows(child)
            if not child.is_alive and child.slot is not None and self._may_replace(child):
                self._workers[index] = self._start_worker(child.slot)
        keeper = self._keeper
        is_gone = keeper is not None and not keeper.is_alive and not self.places.shared.is_done
        if keeper is not None and is_gone and self._may_replace(keeper):
            self._keeper = self._start_keeper()

    def _may_replace(self, child: _Child) -> bool:
        """Whether a process that has ended may be replaced now."""
        now = time.monotonic()
        if child.ended is None:
            child.ended = now
            self._settle(child)
            logger.warning("%s; it is replaced", self._how(child))
        if child.slot is not None and self.places.shared.settled < child.deaths:
            return now - child.ended > _SETTLING
        is_quick = child.ended - child.started < _PAUSE
        return now - child.ended > (_PAUSE if is_quick else 0.0)

    def _how(self, child: _Child) -> str:
        who = (
            f"worker {child.process.pid} of the queue {child.slot.queue!r}"
            if child.slot
            else "keeper"
        )
        return f"{who}: {child.cause or _how_it_ended(child.process.exitcode)}"

    def _settle(self, child: _Child) -> None:
        """Count the calls of an ended process, and have the keeper store the one it died in."""
        if child.slot is None:
            return
        activity = child.slot.activity
        self._delivered += activity.delivered
        self._failed += activity.failed
        call = activity.running()
        if call or activity.parked:
            # A second signal abandons the call: that does not count as an attempt.
            error = (
                "" if self._signals > 1 else child.cause or _how_it_ended(child.process.exitcode)
            )
            if error and call:
                logger.warning(
                    "receiver %s failed (attempt %d) for the row %s: %s",
                    *(call.receiver, call.attempt, call.key, error),
                )
            self._failed += 1
            self._died += 1
            child.deaths = self._died
            self._deaths.send(_death(child.slot, call, error))
            self.places.bell.ring()
        activity.delivered = activity.failed = 0
        activity.is_idle = False
        activity.end()
        activity.leave()

    def _end_what_takes_too_long(self, child: _Child) -> None:
        call = child.slot.activity.running() if child.slot and child.is_alive else None
        if call and call.seconds > _LONG and child.named != _id(call):
            child.named = _id(call)
            logger.warning(
                "%s has run for %.0f s for the row %s, in process %s; it is ended after %g s",
                *(call.receiver, call.seconds, call.key, child.process.pid, call.timeout),
            )
        if call is None or call.seconds < call.limit:
            return
        if child.alarmed != _id(call):
            child.alarmed = _id(call)
            child.send(ALARM)
        elif call.seconds > call.timeout + _GRACE:
            child.cause = (
                f"CallTimedOut: {call.receiver} exceeded its timeout of {call.timeout:g} s, and "
                "nothing but the end of its process could stop it"
            )
            child.send(signal.SIGKILL)

    def _end_what_grows(self, child: _Child) -> None:
        if self._max_memory is None or child.slot is None or not child.is_alive:
            return
        call = child.slot.activity.running()
        held = resident_bytes(child.process.pid)
        if call and child.first_seen[0] != _id(call):
            child.first_seen = _id(call), held
        if held <= self._max_memory:
            return
        grown = held - child.first_seen[1]
        if call and (grown > self._max_memory // 2 or child.is_overdue()):
            child.cause = (
                f"{call.receiver} held {held >> 20} MB, and {self._max_memory >> 20} MB are allowed"
            )
            child.send(signal.SIGKILL)
        else:
            # The process grew over many calls: the current one is not to blame and may finish.
            child.end()


def _id(call: RunningCall) -> int:
    """Tells the calls of a process apart."""
    return hash((call.receiver, call.seq, call.parked, call.epoch)) or 1


def _death(slot: Slot, call: RunningCall | None, error: str) -> Death:
    activity = slot.activity
    where = (call.receiver, call.bucket, call.seq) if call else ("", 0, 0)
    return Death(slot.queue, error, activity.parked, activity.epoch, activity.attempt, *where)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def _start(process: BaseProcess, slot: Slot | None) -> _Child:
    with _no_signals():
        process.start()
    return _Child(process, slot, time.monotonic())


@contextmanager
def _no_signals() -> Iterator[None]:
    """Block signals for the length of the block.

    A child that is being forked would handle one with the supervisor's handler.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep(using: str, parent: int, places: Places, deaths: Connection, once: bool) -> None:
    serving = _serving(using, parent)
    Keeper(serving, places, deaths, once=once).run()


def _work(using: str, parent: int, slot: Slot, bell: Bell) -> None:
    WorkerProcess(_serving(using, parent), slot, bell).run()


def _serving(using: str, parent: int) -> Serving:
    # Ctrl-C is for the supervisor, which passes it on.
    os.setpgid(0, 0)
    serving = Serving(using, orphaned=lambda: os.getppid() != parent)
    serving.handle_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return serving
