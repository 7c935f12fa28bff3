"""One child process of the supervisor, and its limits."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from bulksafe.dispatch.activity import RunningCall
from bulksafe.listener.memory import resident_bytes
from bulksafe.listener.slots import Slot
from bulksafe.listener.worker_process import ALARM

logger = logging.getLogger("bulksafe")

#: Seconds between the interruption of a call and the kill of its process.
GRACE = 3.0
#: Seconds that a worker process may take to exit after its work.
LEAVING = 5.0
#: Seconds after which a running call is logged.
_LONG = 10.0


@dataclass
class Child:
    """A process.

    Attributes:
        slot: the worker's shared state; None for the keeper.
        started, ended: as ``time.monotonic()``.
        deaths: the number of the death that was sent to the keeper.
    """

    process: BaseProcess
    slot: Slot | None
    started: float
    ended: float | None = None
    deaths: int = 0
    #: Why it was killed, if it was.
    _cause: str = ""
    #: The start times of the calls that were last logged and interrupted.
    _named: float = 0.0
    _interrupted: float = 0.0
    #: The current call, and the memory of the process when the call was first seen.
    _first_seen: tuple[float, int] = (0.0, 0)
    #: The time at which it was asked to stop.
    _asked: float | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    @property
    def name(self) -> str:
        if self.slot is None:
            return f"keeper {self.process.pid}"
        return f"worker {self.process.pid} of the queue {self.slot.queue!r}"

    @property
    def how_it_ended(self) -> str:
        code = self.process.exitcode
        if self._cause:
            return self._cause
        if code is not None and code < 0:
            known = {number.value: number.name for number in signal.Signals}
            return f"the process was ended by {known.get(-code, f'signal {-code}')}"
        return f"the process ended with exit code {code}"

    def ask_to_stop(self) -> None:
        """Ask it to stop after its current call. Only once: a second SIGTERM abandons the call."""
        if self._asked is None:
            self._asked = time.monotonic()
            if self.slot is not None:
                self.slot.activity.must_stop = True
            self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        # The id of a reaped process may already belong to a different process.
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def limit_time(self) -> None:
        """Interrupt a call that has run for too long; kill the process if that does not help."""
        call = self._call()
        if call is None:
            return
        if call.seconds > _LONG and self._named != call.since:
            self._named = call.since
            logger.warning(
                "%s has run for %.0f s for the row %s, in process %s; it is interrupted after %g s",
                *(call.receiver, call.seconds, call.key, self.process.pid, call.timeout),
            )
        if call.seconds < call.limit:
            return
        if self._interrupted != call.since:
            self._interrupted = call.since
            self.send(ALARM)
        elif call.seconds > call.timeout + GRACE:
            self._kill(
                f"CallTimedOut: {call.receiver} exceeded its timeout of {call.timeout:g} s, and "
                "only killing its process could stop it"
            )

    def limit_leaving(self) -> None:
        """Kill a process that a thread or child process keeps alive although its work is done."""
        if self.slot is None or not self.is_alive:
            return
        finished = self.slot.activity.finished
        if finished and not self._cause and time.monotonic() - finished > LEAVING:
            self._kill(
                f"it had finished, and its process did not end within {LEAVING:g} s: a receiver "
                "left a thread or a child process running"
            )
            logger.warning("%s: %s", self.name, self._cause)

    def limit_memory(self, most: int) -> None:
        """Kill a process whose call has taken too much memory, and replace one that has grown.

        Args:
            most: the maximum in bytes.
        """
        if self.slot is None or not self.is_alive:
            return
        call = self._call()
        held = resident_bytes(self.process.pid)
        if call and self._first_seen[0] != call.since:
            self._first_seen = call.since, held
        if held <= most:
            return
        is_to_blame = held - self._first_seen[1] > most // 2 or self._is_overdue()
        if call and is_to_blame:
            self._kill(f"{call.receiver} exceeded --max-memory: {held >> 20} MB of {most >> 20} MB")
        else:
            # The process grew over many calls, so the current one may finish.
            if self._asked is None:
                logger.warning(
                    "%s exceeded --max-memory: %d MB of %d MB; it is replaced after its batch",
                    self.name,
                    held >> 20,
                    most >> 20,
                )
            self.ask_to_stop()

    def _call(self) -> RunningCall | None:
        return self.slot.activity.running() if self.slot and self.is_alive else None

    def _kill(self, cause: str) -> None:
        self._cause = cause
        self.send(signal.SIGKILL)

    def _is_overdue(self) -> bool:
        """Whether it still runs although it was asked to stop a while ago."""
        return self._asked is not None and time.monotonic() - self._asked > GRACE
