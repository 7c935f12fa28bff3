"""The signals of Django that have a critical form, and those of bulksafe."""

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

#: The changes of a row that a signal is about.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "pre_save": (INSERT, UPDATE),
    "post_save": (INSERT, UPDATE),
    "pre_delete": (DELETE,),
    "post_delete": (DELETE,),
    "m2m_changed": (INSERT, DELETE),
}


def signal_name(signal: object) -> str:
    """``"post_save"``; empty for what is none of the signals that have a critical form."""
    return next((name for name, known in SIGNALS.items() if known is signal), "")


@dataclass(frozen=True)
class Sender:
    """What an ``Emit`` calls: sends its signal."""

    signal: Signal

    def __call__(self, sender: type[models.Model], **kwargs: Any) -> None:
        """Send to all receivers, then raise what they raised.

        Raises:
            ExceptionGroup: of the errors of the receivers; one bad receiver keeps no other from its
                call, and the event is tried again.
        """
        kwargs.pop("signal", None)
        sent = self.signal.send_robust(sender=sender, **kwargs)
        errors = [response for _, response in sent if isinstance(response, Exception)]
        if errors:
            raise ExceptionGroup("receivers of the signal failed", errors)


#: Sent by the listener when an event was given up. ``sender`` is the model, and the keyword
#: arguments are ``id`` (as in ``bulksafe status``), ``receiver`` (its name), ``key``, ``attempts``,
#: ``error``, ``event_id`` and ``using``. What its receivers raise is logged.
dead_letter = Signal()
