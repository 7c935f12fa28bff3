"""The declarations of users: small classes that contain no SQL."""

from bulksafe.declarations.base import Invariant
from bulksafe.declarations.capture import Capture
from bulksafe.declarations.check import Check
from bulksafe.declarations.compute import Compute
from bulksafe.declarations.declaring import critical
from bulksafe.declarations.emit import Emit
from bulksafe.declarations.immutable import Immutable
from bulksafe.declarations.receiver import Receiver
from bulksafe.declarations.registry import Declared, declared, find, label_of, register
from bulksafe.declarations.senders import models_of
from bulksafe.declarations.signals import dead_letter
from bulksafe.declarations.transition import Transition

__all__ = [
    "Capture",
    "Check",
    "Compute",
    "Declared",
    "Emit",
    "Immutable",
    "Invariant",
    "Receiver",
    "Transition",
    "critical",
    "dead_letter",
    "declared",
    "find",
    "label_of",
    "models_of",
    "register",
]
