"""The lasting name of a receiver, under which parked events find it again."""

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
    """``text`` with what the receiver is called for: ``"audit@shop.Order.post_save"``."""
    labels = "+".join(label_of_sender(sender) for sender in senders) or "*"
    return f"{text}@{labels}.{signal_name(signal) or 'unknown'}"


def uid_text(uid: Hashable) -> str:
    """A ``dispatch_uid`` as the text of a name."""
    return str(uid) if isinstance(uid, str) else repr(uid)


def is_lasting(uid: object) -> bool:
    """Whether another process makes the same text of an equal ``dispatch_uid``."""
    if isinstance(uid, tuple):
        return all(map(is_lasting, uid))
    # The order of a set is different in each process, and so is an address.
    return not isinstance(uid, frozenset) and " at 0x" not in repr(uid)


def is_hashable(uid: object) -> bool:
    try:
        hash(uid)
    except TypeError:
        return False
    return True
