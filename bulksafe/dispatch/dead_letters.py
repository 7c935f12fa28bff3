"""Announces dead letters."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulksafe.declarations import dead_letter

if TYPE_CHECKING:
    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.changes import Change
    from bulksafe.outbox.failures import Failure

logger = logging.getLogger("bulksafe")


@dataclass(frozen=True)
class DeadLetter:
    """An event that was given up for a receiver.

    Attributes:
        id: its id among the parked events, as in ``bulksafe status`` and ``retry``.
    """

    id: int
    receiver: Receiver
    change: Change
    failure: Failure

    def announce(self) -> None:
        """Log it and send ``bulksafe.dead_letter``. Called once it is stored."""
        name, key = self.receiver.name, self.change.event.key
        attempts, error = self.failure.attempts, (self.failure.error or "").partition("\n")[0]
        logger.error(
            "dead letter %d: receiver %s gave up on %s %s after %d %s: %s",
            self.id,
            name,
            self.change.model._meta.label,
            key,
            attempts,
            "attempt" if attempts == 1 else "attempts",
            error,
            extra={"id": self.id, "receiver": name, "key": key, "attempts": attempts},
        )
        sent = dead_letter.send_robust(
            sender=self.change.model,
            id=self.id,
            receiver=name,
            key=key,
            attempts=attempts,
            error=error,
            event_id=self.change.event_id,
            using=self.change.using,
        )
        for function, answer in sent:
            if isinstance(answer, Exception):
                logger.error("the dead_letter receiver %r failed", function, exc_info=answer)
