"""The Django signals that ``critical`` supports, and bulksafe's own signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

if TYPE_CHECKING:
    from django.db import models

INSERT, UPDATE, DELETE = "INSERT", "UPDATE", "DELETE"

#: Django's signals by name, in the order in which Django sends them.
SIGNALS: dict[str, Any] = {
    "pre_save": pre_save,
    "post_save": post_save,
    "pre_delete": pre_delete,
    "post_delete": post_delete,
    "m2m_changed": m2m_changed,
}

#: The row operations of each signal.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "pre_save": (INSERT, UPDATE),
    "post_save": (INSERT, UPDATE),
    "pre_delete": (DELETE,),
    "post_delete": (DELETE,),
    "m2m_changed": (INSERT, DELETE),
}


def signal_name(signal: object) -> str:
    """A signal's name, like ``"post_save"``; empty if ``critical`` does not support it."""
    return next((name for name, known in SIGNALS.items() if known is signal), "")


@dataclass(frozen=True)
class Sender:
    """The function of an ``Emit``: sends its signal."""

    signal: Signal

    def __call__(self, sender: type[models.Model], **kwargs: Any) -> None:
        """Send to all receivers, then raise what they raised.

        Raises:
            ExceptionGroup: of the errors of the receivers; a failing receiver does not stop the
                others, and the event is retried.
        """
        kwargs.pop("signal", None)
        sent = self.signal.send_robust(sender=sender, **kwargs)
        errors = [response for _, response in sent if isinstance(response, Exception)]
        if errors:
            raise ExceptionGroup("receivers of the signal failed", errors)


#: Sent by the listener when an event was given up. ``sender`` is the model, and the keyword
#: arguments are ``id`` (as in ``bulksafe status``), ``receiver`` (its name), ``key``, ``attempts``,
#: ``error``, ``event_id`` and ``using``. Exceptions of its receivers are logged.
dead_letter = Signal()
