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
    from collections.abc import Callable, Collection

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


class _Connections:
    """The receivers of one signal by their senders, for one state of its list.

    Attributes:
        critical: by the ``id()`` of the concrete model.
        others: the senders of ordinary receivers, as Django identifies them.
    """

    def __init__(self, signal: Signal) -> None:
        self._state = _state(signal)
        self.critical: dict[int, set[Receiver]] = {}
        self.others: set[int] = set()
        for key, receiver, *_ in signal.receivers:
            if type(receiver) is not Connected:
                self.others.add(key[1])
            elif receiver.receiver.is_inline and key[1] == id(receiver.model):
                self.critical.setdefault(key[1], set()).add(receiver.receiver)

    def are_of(self, signal: Signal) -> bool:
        """Whether the signal's receivers are still the same."""
        receivers, *rest = _state(signal)
        return receivers is self._state[0] and (*rest,) == self._state[1:]


def _state(signal: Signal) -> tuple[list[Any], int, int]:
    """Tests mute receivers by replacing or emptying the list."""
    return signal.receivers, len(signal.receivers), _changes[0]


_by_signal: dict[Signal, _Connections] = {}


def _connections(signal: Signal) -> _Connections:
    """Indexed: a signal of Django's lists the receivers of all models."""
    found = _by_signal.get(signal)
    if found is None or not found.are_of(signal):
        found = _by_signal[signal] = _Connections(signal)
    return found


def live(signal: Signal, model: type[Model]) -> Collection[Receiver]:
    """The in-transaction receivers that are now connected to the signal for a model."""
    return _connections(signal).critical.get(id(model._meta.concrete_model), ())


def has_others(signal: Signal, sender: type[Model]) -> bool:
    """Whether the signal has receivers for a model that are not critical."""
    keys = {dispatcher._make_id(None), dispatcher._make_id(sender)}  # type: ignore[attr-defined]
    return not keys.isdisjoint(_connections(signal).others)
