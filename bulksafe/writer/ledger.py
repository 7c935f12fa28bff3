"""Which receivers have been called for which rows of one write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from django.db.models import Model

    from bulksafe.declarations import Receiver


class Ledger:
    """The calls of one write.

    A row is known by the instance that its receivers get: there is one for each row, also while the
    row has no key, and it stays the same when the key changes.
    """

    def __init__(self) -> None:
        #: By the ``id()`` of the instance, which is kept: no other one gets its place in memory.
        self._called: dict[int, tuple[Model, set[Receiver]]] = {}

    def note(self, receiver: Receiver, instance: Model) -> None:
        """The receiver is about to be called, or is not to be called any more."""
        self._called.setdefault(id(instance), (instance, set()))[1].add(receiver)

    def called_for(self, instance: Model) -> AbstractSet[Receiver]:
        """The receivers that have been called for the instance."""
        found = self._called.get(id(instance))
        return frozenset() if found is None else found[1]
