"""Makes the calls of a batch, with or without a savepoint around each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction

from bulksafe.dispatch.caller import RAISED, Caller
from bulksafe.exceptions import CallTimedOut
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call


class CallFailed(Exception):  # noqa: N818
    """A call without a savepoint failed: the transaction must be rolled back."""


class CallTookTooLong(Exception):  # noqa: N818
    """A call took too long for a batch, which must be rolled back.

    Args:
        call: the call.
        error: the timeout, if the call exceeded its own; None if it continues alone.
    """

    def __init__(self, call: Call, error: CallTimedOut | None) -> None:
        super().__init__(call.receiver.name)
        self.call = call
        self.error = error


class BatchFailed(Exception):  # noqa: N818
    """The deferred constraints of a batch failed or took too long.

    No call can be blamed: each must run alone, with a check of its own.
    """


def check_constraints(caller: Caller) -> None:
    """Check the deferred constraints of a batch.

    Raises:
        BatchFailed: the calls have to run alone.
    """
    try:
        caller.check_constraints(None, caller.slow)
    except RAISED as error:
        if caller.is_lost:
            raise
        raise BatchFailed(f"{type(error).__name__}: {error}") from error


def make_or_fail(caller: Caller, call: Call) -> None:
    """Make a call in a batch without a savepoint: if it fails, so does the batch.

    Raises:
        CallFailed: the call failed; the cause is its exception.
        CallTookTooLong: it has to run alone.
    """
    try:
        caller.make(call, _limit(caller, call.receiver))
    except CallTimedOut as late:
        raise _too_long(caller, call, late) from late
    except RAISED as error:
        if caller.is_lost:
            raise
        raise CallFailed(call.receiver.name) from error


def attempt(caller: Caller, call: Call) -> BaseException | None:
    """Make a call in a batch, in a savepoint.

    Returns:
        its exception.

    Raises:
        CallTookTooLong: it has to run alone.
    """
    try:
        with transaction.atomic(using=caller.using):
            before = Store(caller.using).session()
            caller.make(call, _limit(caller, call.receiver))
            caller.check_session(call, before, Store(caller.using).session())
    except CallTimedOut as late:
        raise _too_long(caller, call, late) from late
    except RAISED as error:  # every exception of a receiver is stored with its event
        return caller.noted(call, error, 1)
    return None


def _limit(caller: Caller, receiver: Receiver) -> float:
    return min(caller.timeout(receiver), caller.slow)


def _too_long(caller: Caller, call: Call, late: CallTimedOut) -> CallTookTooLong:
    """A call whose timeout exceeds the batch limit continues alone."""
    has_timed_out = caller.timeout(call.receiver) <= caller.slow
    return CallTookTooLong(call, late if has_timed_out else None)
