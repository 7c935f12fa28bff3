"""Patches of signals: critical receivers are connected to them in order, and stay critical.

A critical receiver is connected as a ``Connected``, see ``bulksafe.writer.connecting``. No public
API sets the position of a receiver in its signal's list: this module writes to the list.
"""

from __future__ import annotations

from collections import defaultdict
from operator import is_
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ReferenceType

from django.apps import apps
from django.db.models.signals import ModelSignal
from django.dispatch import dispatcher

from bulksafe import conf
from bulksafe.declarations import receivers
from bulksafe.declarations.naming import is_hashable
from bulksafe.declarations.order import in_order
from bulksafe.declarations.receiver import is_same_callable
from bulksafe.patches.patching import Patch
from bulksafe.writer import connecting
from bulksafe.writer.connecting import Connected

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from django.db.models import Model
    from django.dispatch import Signal

    from bulksafe.declarations import Receiver
    from bulksafe.patches.patching import Original

    #: A connection in ``Signal.receivers``: the key (the receiver's and the sender's), the receiver
    #: or a weak reference to it, and what else the version of Django keeps.
    Entry: TypeAlias = tuple[Any, ...]

#: Each connection by its signal and its sender, including disconnected ones.
_made: dict[tuple[int, int], dict[Hashable, Connected]] = defaultdict(dict)


def connect_critical(receiver: Receiver) -> None:
    """Connect a receiver to its models and their proxies."""
    is_captured = receivers.is_captured(receiver)
    if not is_captured or not receiver.signal_name or not callable(receiver.function):
        return
    if not is_hashable(receiver.uid):
        # A system check refuses it.
        return
    for model in receiver.models():
        if not (receiver.is_inline or conf.is_in_rollout(model._meta.label)):
            # Only the listener calls it.
            continue
        if not receivers.is_repeated(receiver, model._meta.label_lower):
            for sender in _senders(model):
                _connect_to(receiver, model, sender)
    _put_in_order(receiver.signal)


def connect_all() -> None:
    for receiver in receivers.receivers:
        connect_critical(receiver)


def disconnect_critical(receiver: Receiver) -> None:
    """Remove all connections of a receiver: for tests."""
    signal = receiver.signal
    for made in _made.values():
        for key in [key for key, one in made.items() if one.receiver is receiver]:
            del made[key]
    with signal.lock:
        signal.receivers = [
            entry for entry in signal.receivers if _receiver_of(entry) is not receiver
        ]
        signal.sender_receivers_cache.clear()


def _connect(original: Original[None], self: ModelSignal, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    _restore(self)
    connecting.note_change()


def _disconnect(original: Original[bool], self: ModelSignal, *args: Any, **kwargs: Any) -> bool:
    is_disconnected = original(self, *args, **kwargs)
    connecting.note_change()
    return is_disconnected


def _restore(signal: Signal) -> None:
    """Make a receiver critical again after ``disconnect()`` and ``connect()``.

    Connected as an ordinary receiver, it would not run for bulk writes.
    """
    if not _made:
        return
    with signal.lock:
        found: list[Entry] = []
        for entry in signal.receivers:
            connected = _critical(signal, entry)
            if connected is None:
                found.append(entry)
            elif not any(one[1] is connected for one in signal.receivers):
                found.append(_replaced(entry, connected))
        is_same = len(found) == len(signal.receivers) and all(map(is_, found, signal.receivers))
        if not is_same:
            signal.receivers = found
            signal.sender_receivers_cache.clear()
    if not is_same or any(map(_is_async, signal.receivers)):
        _put_in_order(signal)


def _replaced(entry: Entry, connected: Connected) -> Entry:
    """An ordinary receiver's entry, replaced by the critical one of its function."""
    key = _key(connected.receiver), entry[0][1]
    # Django would await an entry that is marked as asynchronous; a Connected never is.
    return key, connected, *(False if item is True else item for item in entry[2:])


def _critical(signal: Signal, entry: Entry) -> Connected | None:
    """The critical entry for an ordinary receiver, if its function is critical."""
    if type(entry[1]) is Connected:
        return None
    function = entry[1]() if isinstance(entry[1], ReferenceType) else entry[1]
    made = _made.get((id(signal), entry[0][1]), {})
    found = made.values()
    return next((o for o in found if is_same_callable(o.receiver.function, function)), None)


def _senders(model: type[Model]) -> Iterator[type[Model]]:
    yield model
    for other in apps.get_models(include_auto_created=True):
        if other._meta.proxy and other._meta.concrete_model is model:
            yield other


def _connect_to(receiver: Receiver, model: type[Model], sender: type[Model]) -> None:
    signal = receiver.signal
    connected = Connected(receiver, model)
    uid = _key(receiver)
    key = (uid, dispatcher._make_id(sender))  # type: ignore[attr-defined]
    _made[id(signal), key[1]][uid] = connected
    # A function that is also connected as an ordinary receiver becomes critical, and a second
    # registration replaces the first.
    with signal.lock:
        place = next((n for n, entry in enumerate(signal.receivers) if entry[0] == key), None)
        signal.receivers = [entry for entry in signal.receivers if entry[0] != key]
        signal.sender_receivers_cache.clear()
    signal.connect(connected, sender=sender, weak=False, dispatch_uid=uid)
    if place is not None:
        with signal.lock:
            signal.receivers.insert(place, signal.receivers.pop())
            signal.sender_receivers_cache.clear()


def _key(receiver: Receiver) -> Hashable:
    """The key under which Django stores a connection of a signal and a sender."""
    if receiver.has_uid:
        return receiver.uid
    return dispatcher._make_id(receiver.function)  # type: ignore[attr-defined, no-any-return]


def _is_async(entry: Entry) -> bool:
    receiver = _receiver_of(entry)
    return receiver is not None and receiver.is_async


def _receiver_of(entry: Entry) -> Receiver | None:
    return entry[1].receiver if type(entry[1]) is Connected else None


def _put_in_order(signal: Signal) -> None:
    """Sort the critical receivers of the signal by their ``after``.

    Asynchronous ones run after all others, as in Django's ``send()``, which would await them if it
    recognised them. The rest keep their positions.
    """
    with signal.lock:
        places = [n for n, entry in enumerate(signal.receivers) if _receiver_of(entry)]
        entries = [signal.receivers[n] for n in places]
        if not any(entry[1].receiver.after or entry[1].receiver.is_async for entry in entries):
            return
        wanted = in_order(list(dict.fromkeys(entry[1].receiver for entry in entries)))
        rank = {receiver: number for number, receiver in enumerate(wanted)}
        for place, entry in zip(
            places, sorted(entries, key=lambda e: rank[e[1].receiver]), strict=True
        ):
            signal.receivers[place] = entry
        signal.receivers.sort(key=_is_async)
        signal.sender_receivers_cache.clear()


EARLY = (
    Patch(
        ModelSignal,
        "connect",
        _connect,
        "Code mutes receivers by disconnect() and connect(): a critical receiver must be "
        "critical again afterwards.",
    ),
    Patch(
        ModelSignal,
        "disconnect",
        _disconnect,
        "A receiver may disconnect itself or other receivers during a bulk write.",
    ),
)
