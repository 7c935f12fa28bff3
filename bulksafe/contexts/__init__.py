"""``bulksafe.context``: who writes and why, carried with every event to its receivers."""

from bulksafe.contexts.blocks import being_called, context, leaving
from bulksafe.contexts.carrier import Carrier, carrier_of, carry, notice, past_django
from bulksafe.contexts.identity import WRITTEN_BY, current
from bulksafe.contexts.setting import correct

__all__ = [
    "WRITTEN_BY",
    "Carrier",
    "being_called",
    "carrier_of",
    "carry",
    "context",
    "correct",
    "current",
    "leaving",
    "notice",
    "past_django",
]
