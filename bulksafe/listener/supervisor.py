"""Several listener processes, and one that looks after them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from django.db import connections

from bulksafe.listener.daemon import Daemon, Pulse

if TYPE_CHECKING:
    from collections.abc import Collection
    from multiprocessing.process import BaseProcess

logger = logging.getLogger("bulksafe")

#: Seconds before a process that ended by itself is replaced.
_PAUSE = 1.0

#: What ends the listener.
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Forked: the project is loaded once, and no connection is open at that moment.
_context = multiprocessing.get_context("fork")


@dataclass
class _Child:
    process: BaseProcess
    #: beat, connected, delivered, failed; written by the child.
    shared: Any
    ended: float | None = None

    @property
    def pulse(self) -> Pulse:
        beat, connected, delivered, failed = self.shared[:]
        alive = self.process.is_alive()
        return Pulse(beat, bool(connected) and alive, int(delivered), int(failed))


@dataclass
class Supervisor:
    """Starts ``processes`` listeners, replaces those that die, and passes signals on."""

    using: str
    queues: Collection[str]
    processes: int
    children: list[_Child] = field(default_factory=list)
    _signals: int = 0

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Look after the processes until told to stop.

        Args:
            started: called when the first processes run.
        """
        connections.close_all()
        for connection in connections.all(initialized_only=True):
            # A pool's threads do not live on in a fork, and its sockets must not be shared.
            if connection.vendor == "postgresql":
                connection.close_pool()  # type: ignore[attr-defined]
        self.children = [self._start() for _ in range(self.processes)]
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        started()
        while any(child.process.is_alive() for child in self.children) or not self._signals:
            wait([child.process.sentinel for child in self._alive()], timeout=0.5)
            if not self._signals:
                self._replace_dead()
        for child in self.children:
            child.process.join()

    def pulses(self) -> list[Pulse]:
        return [child.pulse for child in self.children]

    def _alive(self) -> list[_Child]:
        return [child for child in self.children if child.process.is_alive()]

    def _start(self) -> _Child:
        shared = _context.Array("d", [time.time(), 0, 0, 0], lock=False)
        process = _context.Process(
            target=_serve, args=(self.using, self.queues, os.getpid(), shared), daemon=False
        )
        process.start()
        return _Child(process, shared)

    def _replace_dead(self) -> None:
        for index, child in enumerate(self.children):
            if child.process.is_alive():
                continue
            if child.ended is None:
                child.ended = time.monotonic()
                logger.warning(
                    "process %s ended with code %s: it is replaced",
                    child.process.pid,
                    child.process.exitcode,
                )
            elif time.monotonic() - child.ended > _PAUSE:
                with _no_signals():
                    if not self._signals:
                        self.children[index] = self._start()

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        for child in self._alive():
            if child.process.pid is not None:
                os.kill(child.process.pid, number)


class _SharedPulse(Pulse):
    """A pulse that the supervisor sees."""

    _shared: Any

    def __init__(self, shared: Any) -> None:
        object.__setattr__(self, "_shared", shared)
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._shared[("beat", "connected", "delivered", "failed").index(name)] = float(value)


@contextmanager
def _no_signals() -> Iterator[None]:
    """Signals wait until the block ends.

    One that comes while a process is being forked would be passed on to all but that, or be handled
    in it as if it were the supervisor.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(using: str, queues: Collection[str], parent: int, shared: Any) -> None:
    # Ctrl-C is for the supervisor, which passes it on once.
    os.setpgid(0, 0)
    daemon = Daemon(
        using,
        queues,
        orphaned=lambda: os.getppid() != parent,
        pulse=_SharedPulse(shared),
    )
    daemon.handle_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    daemon.run()
