"""Connects critical receivers to Django's signals.

A critical receiver is connected to its signal like any other (``bulksafe.patches.signals`` does
that): Django sends to it, and ``disconnect``, ``has_listeners`` and factory_boy's ``mute_signals``
work for it. While it is connected, it also runs for the writes for which Django sends no signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.dispatch import dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model
    from django.dispatch import Signal

    from bulksafe.declarations import Receiver

#: Version counter; changes whenever a signal's receivers change.
_changes = [0]

#: Called for each sent signal; ``bulksafe.writer.attaching`` adds to it.
sent: list[Callable[[Connected, Any, dict[str, Any]], None]] = []


@dataclass(frozen=True, eq=False)
class Connected:
    """A receiver, connected for one sender."""

    receiver: Receiver
    model: type[Model]

    def __call__(self, signal: Signal, sender: Any, **named: Any) -> None:
        """Called by Django's ``send``."""
        sent[0](self, connections[named.get("using") or DEFAULT_DB_ALIAS], named)

    def __repr__(self) -> str:
        return repr(self.receiver)


def note_change() -> None:
    _changes[0] += 1


def changes() -> int:
    """Version counter; changes whenever a receiver is connected or disconnected."""
    return _changes[0]


def live(signal: Signal, model: type[Model]) -> set[Receiver]:
    """The in-transaction receivers that are now connected to the signal for a model."""
    concrete = model._meta.concrete_model
    return {
        entry[1].receiver
        for entry in signal.receivers
        if type(entry[1]) is Connected
        and entry[1].receiver.is_inline
        and entry[1].model is concrete
        and entry[0][1] == id(concrete)
    }


def has_others(signal: Signal, sender: type[Model]) -> bool:
    """Whether the signal has receivers for a model that are not critical."""
    keys = {dispatcher._make_id(None), dispatcher._make_id(sender)}  # type: ignore[attr-defined]
    return any(type(entry[1]) is not Connected for entry in signal.receivers if entry[0][1] in keys)
