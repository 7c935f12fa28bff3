"""Making calls: what a receiver raises becomes what is noted with its event."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

if TYPE_CHECKING:
    from bulksafe.dispatch.calls import Call
    from bulksafe.outbox.events import Event

logger = logging.getLogger("bulksafe")


class BrokenTransaction(Exception):  # noqa: N818
    """A receiver caught a database error and left the transaction unusable.

    Put what may fail into ``transaction.atomic()`` inside the receiver.
    """


@dataclass
class Caller:
    """Makes calls on the connection ``using``, and counts them.

    Attributes:
        using: the database.
        delivered: how many calls were made.
        failed: how many failed.
    """

    using: str
    delivered: int = 0
    failed: int = 0

    @cached_property
    def _connection(self) -> Any:
        return connections[self.using]

    @property
    def is_lost(self) -> bool:
        """Whether the connection is, or the transaction cannot go on."""
        driver = self._connection.connection
        return driver is None or driver.closed or self._connection.needs_rollback

    def make(self, call: Call) -> None:
        """Make a call in the open transaction.

        Raises:
            BrokenTransaction: it has left the transaction unusable, and hidden that.
        """
        call()
        if self._connection.needs_rollback:
            raise BrokenTransaction(
                f"{call.receiver.name} caught a database error without a savepoint around it: put "
                "what may fail into transaction.atomic()."
            )
        self.delivered += 1

    def attempt(self, call: Call, event: Event) -> Exception | None:
        """Make a call in a savepoint.

        Returns:
            what it raised.
        """
        try:
            with transaction.atomic(using=self.using):
                self.make(call)
        except Exception as error:  # whatever a receiver raises is noted with its event
            return self._noted(call, event, error)
        return None

    def attempt_outside(self, call: Call, event: Event) -> Exception | None:
        """Make a call while no transaction is open.

        Returns:
            what it raised.
        """
        try:
            call()
        except Exception as error:  # whatever a receiver raises is noted with its event
            return self._noted(call, event, error)
        self.delivered += 1
        return None

    def _noted(self, call: Call, event: Event, error: Exception) -> Exception:
        """The error, logged; one that took the connection along is none of the receiver's."""
        if self.is_lost:
            raise error
        self.failed += 1
        attempts = event.attempts + 1
        logger.warning(
            "receiver %s failed (attempt %d of %d) on event %d: %s: %s",
            call.receiver.name,
            attempts,
            call.receiver.max_attempts,
            event.seq,
            type(error).__name__,
            error,
            exc_info=error,
            extra={"receiver": call.receiver.name, "seq": event.seq, "attempts": attempts},
        )
        return error
