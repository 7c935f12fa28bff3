"""The permanent name of a receiver, which parked events store."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from bulksafe.declarations.senders import label_of_sender
from bulksafe.declarations.signals import signal_name


def default_name(function: object, senders: Sequence[object], signal: object) -> str:
    """``"shop.receivers.notify_warehouse@shop.Order.post_save"``."""
    module = getattr(function, "__module__", type(function).__module__)
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    return full_name(f"{module}.{qualname}", senders, signal)


def full_name(text: str, senders: Sequence[object], signal: object) -> str:
    """``text`` with the receiver's senders and signal: ``"audit@shop.Order.post_save"``."""
    labels = "+".join(label_of_sender(sender) for sender in senders) or "*"
    return f"{text}@{labels}.{signal_name(signal) or 'unknown'}"


def uid_text(uid: Hashable) -> str:
    """A ``dispatch_uid`` as the text of a name."""
    return str(uid) if isinstance(uid, str) else repr(uid)


def is_lasting(uid: object) -> bool:
    """Whether the text of a ``dispatch_uid`` is the same in every process."""
    if isinstance(uid, tuple):
        return all(map(is_lasting, uid))
    # The order of a set and the address of an object differ between processes.
    return not isinstance(uid, frozenset) and " at 0x" not in repr(uid)


def is_hashable(uid: object) -> bool:
    try:
        hash(uid)
    except TypeError:
        return False
    return True
