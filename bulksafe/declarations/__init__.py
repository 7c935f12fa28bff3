"""What a user writes: small classes that say what must hold. They know no SQL."""

from bulksafe.declarations.base import Invariant
from bulksafe.declarations.check import Check
from bulksafe.declarations.compute import Compute
from bulksafe.declarations.immutable import Immutable
from bulksafe.declarations.registry import Declared, declared, label_of, register
from bulksafe.declarations.transition import Transition

__all__ = [
    "Check",
    "Compute",
    "Declared",
    "Immutable",
    "Invariant",
    "Transition",
    "declared",
    "label_of",
    "register",
]
