"""The result of a failed attempt: a retry after a delay, or a dead letter."""

from __future__ import annotations

import logging
import math
import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bulksafe import conf
from bulksafe.exceptions import PermanentFailure, RetryAfter

if TYPE_CHECKING:
    from bulksafe.declarations.options import Backoff
    from bulksafe.declarations.receiver import Receiver

logger = logging.getLogger("bulksafe")

WAITING, DEAD = "waiting", "dead"


@dataclass(frozen=True)
class Failure:
    """The result of an attempt.

    Attributes:
        attempts: the number of attempts.
        error: the exception in one line.
        traceback: where it was raised.
        state: ``"waiting"`` or ``"dead"``.
        blocks: whether later events of the row wait for this one.
        delay: seconds until the next attempt; None for a call that waits behind an earlier one.
    """

    attempts: int
    error: str | None = None
    traceback: str | None = None
    state: str = WAITING
    blocks: bool = True
    delay: float | None = 0.0

    @property
    def is_dead(self) -> bool:
        return self.state == DEAD

    @classmethod
    def of(cls, error: BaseException, attempts: int, receiver: Receiver) -> Failure:
        """The failure of the attempt number ``attempts``."""
        found = cls.described(in_a_line(error), attempts, receiver)
        where = _shortened("".join(traceback.format_exception(error)), _TRACEBACK_LENGTH)
        if isinstance(error, RetryAfter):
            found = replace(found, delay=error.seconds)
        if isinstance(error, PermanentFailure):
            found = replace(found, state=DEAD, blocks=receiver.on_dead == "block")
        return replace(found, traceback=where)

    @classmethod
    def described(cls, error: str, attempts: int, receiver: Receiver) -> Failure:
        """The failure of the attempt number ``attempts``, given only as text."""
        is_dead = attempts >= receiver.max_attempts
        return cls(
            attempts,
            _shortened(error, _ERROR_LENGTH),
            None,
            DEAD if is_dead else WAITING,
            not is_dead or receiver.on_dead == "block",
            retry_delay(attempts, receiver.backoff),
        )


#: For a call that was not tried and is due now.
UNTRIED = Failure(0)
#: For one that was not tried because an earlier call of its row and receiver comes first.
BEHIND = Failure(0, delay=None)

_ERROR_LENGTH = 1_000
_TRACEBACK_LENGTH = 20_000


def in_a_line(error: BaseException) -> str:
    """The exception's class and text. A failing ``__str__`` must not stop the worker."""
    try:
        text = str(error)
    except Exception as second:
        text = f"its text cannot be shown: {type(second).__name__}"
    return f"{type(error).__name__}: {text}"


def _shortened(text: str, length: int) -> str:
    """Cut the middle of a traceback: its end matters most. PostgreSQL's text has no NUL."""
    clean = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    return clean if len(clean) <= length else f"{clean[: length // 2]} … {clean[-length // 2 :]}"


def retry_delay(attempts: int, backoff: Backoff = None) -> float:
    """Seconds before the next attempt: exponential backoff with equal jitter.

    Half of the delay is random, so that calls that failed together are not retried together.
    (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)

    Args:
        attempts: how many have failed.
        backoff: the receiver's own: seconds before the second attempt, doubled for each further
            one; a sequence of seconds, the last of which holds for all further attempts; or a
            function of ``attempts``, whose result is used as it is.
    """
    if callable(backoff):
        return _seconds_of(backoff, attempts)
    if isinstance(backoff, Sequence):
        delay = float(backoff[min(attempts, len(backoff)) - 1])
    else:
        settings = conf.get()
        first = settings.RETRY_DELAY if backoff is None else backoff
        delay = min(first * 2 ** min(attempts - 1, 60), settings.RETRY_DELAY_MAX)
    return delay * random.uniform(0.5, 1.0)  # noqa: S311


def _seconds_of(backoff: Callable[[int], float], attempts: int) -> float:
    """The result of a user's function; the default delay if it fails, so that no event is stuck."""
    try:
        seconds = float(backoff(attempts))
    except Exception:
        logger.exception(
            "backoff=%r failed after attempt %d: using the default delay", backoff, attempts
        )
        return retry_delay(attempts)
    if not math.isfinite(seconds):
        logger.error("backoff=%r returned %r: using the default delay", backoff, seconds)
        return retry_delay(attempts)
    return max(seconds, 0.0)
