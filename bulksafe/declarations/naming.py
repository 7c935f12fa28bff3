"""The lasting name of a receiver, under which parked events find it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bulksafe.declarations.senders import label_of_sender
from bulksafe.declarations.signals import signal_name


def default_name(function: Any, senders: Sequence[Any], signal: Any) -> str:
    """``"shop.receivers.notify_warehouse@shop.Order.post_save"``."""
    module = getattr(function, "__module__", type(function).__module__)
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    labels = "+".join(label_of_sender(sender) for sender in senders) or "*"
    return f"{module}.{qualname}@{labels}.{signal_name(signal) or 'unknown'}"
