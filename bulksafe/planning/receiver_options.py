"""Checks the options of a critical receiver."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bulksafe.declarations import Receiver
from bulksafe.declarations.modes import OBSERVE
from bulksafe.declarations.options import (
    AFTER_COMMIT,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_QUEUE,
    IN_DATABASE,
    IN_TRANSACTION,
    REFUSE,
)
from bulksafe.planning.problems import Problem, did_you_mean, shown

_RUNS = (AFTER_COMMIT, IN_TRANSACTION, IN_DATABASE)
#: Options for listener receivers only, with their defaults.
_OF_LISTENER: dict[str, object] = {
    "queue": DEFAULT_QUEUE,
    "atomic": True,
    "max_attempts": DEFAULT_MAX_ATTEMPTS,
    "on_dead": "block",
    "timeout": None,
    "backoff": None,
    "coalesce": False,
}
#: Options for in-transaction receivers only, with their defaults.
_OF_TRANSACTION: dict[str, object] = {"otherwise": REFUSE, "row_by_row": None}


def option_problems(receiver: Receiver) -> Iterator[Problem]:
    if receiver.run not in _RUNS:
        yield Problem(
            "E100",
            f"run is {shown(receiver.run)}.",
            did_you_mean(receiver.run, _RUNS, 'Write run="after_commit".'),
        )
    elif receiver.run == IN_DATABASE:
        yield Problem(
            "E101",
            f'run="{receiver.run}" is not in this version of bulksafe: the receiver would never be '
            "called.",
            'Write run="in_transaction" (the default), or run="after_commit".',
        )
    yield from _value_problems(receiver)


def _value_problems(receiver: Receiver) -> Iterator[Problem]:
    for option in ("batch", "atomic", "coalesce"):
        value = getattr(receiver, option)
        if not isinstance(value, bool):
            yield wrong(option, value, f"{option}=True", "True or False")
    row_by_row: object = receiver.row_by_row
    if row_by_row is not None and not isinstance(row_by_row, bool):
        yield wrong("row_by_row", row_by_row, "row_by_row=True", "True, False or None")
    queue: object = receiver.queue
    if not isinstance(queue, str) or not queue.isprintable() or not queue or set(queue) & set(", "):
        yield wrong("queue", queue, 'queue="mail"', "a name without spaces and commas")
    attempts: object = receiver.max_attempts
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        yield wrong("max_attempts", attempts, "max_attempts=10", "a positive whole number")
    if receiver.on_dead not in ("block", "skip"):
        yield wrong("on_dead", receiver.on_dead, 'on_dead="block"', "“block” or “skip”")
    if receiver.timeout is not None and not _is_duration(receiver.timeout):
        yield wrong("timeout", receiver.timeout, "timeout=30", "a positive number of seconds")
    yield from _backoff_problems(receiver.backoff)
    if receiver.otherwise not in (REFUSE, AFTER_COMMIT, OBSERVE):
        wanted = "“refuse”, “after_commit” or “observe”"
        yield wrong("otherwise", receiver.otherwise, 'otherwise="refuse"', wanted)


def _is_duration(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf  # type: ignore[operator]


def _backoff_problems(backoff: object) -> Iterator[Problem]:
    if backoff is None or callable(backoff) or _is_duration(backoff):
        return
    if isinstance(backoff, list | tuple) and backoff and all(map(_is_duration, backoff)):
        return
    wanted = "positive seconds, a list of them, or a function of the number of attempts"
    yield wrong("backoff", backoff, "backoff=[1, 60, 3600]", wanted)


def misplaced_options(receiver: Receiver) -> Iterator[Problem]:
    """Options without effect on receivers of this kind."""
    if receiver.run == AFTER_COMMIT:
        for option, default in _OF_TRANSACTION.items():
            if getattr(receiver, option) != default:
                yield Problem(
                    "E121",
                    f"{option}= is for receivers in the writer's transaction, and this one runs "
                    "after the commit.",
                    f'Leave {option}= out, or write run="in_transaction".',
                )
    elif receiver.is_inline:
        for option, default in _OF_LISTENER.items():
            if getattr(receiver, option) != default and not receiver.is_listened:
                yield Problem(
                    "E121",
                    f"{option}= is for receivers that the listener runs, and this one runs in the "
                    "writer's transaction.",
                    f'Leave {option}= out, or write run="after_commit".',
                )
        if receiver.batch is True and receiver.row_by_row is True:
            yield Problem(
                "E121",
                "batch= calls the receiver once for all rows, and row_by_row= for each.",
                "Leave one of them out.",
            )


def wrong(option: str, value: object, example: str, wanted: str) -> Problem:
    return Problem("E112", f"{option} is {shown(value)}, not {wanted}.", f"Write {example}.")
