"""Records which receivers have been called for which rows of one write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from django.db.models import Model

    from bulksafe.declarations import Receiver


class Ledger:
    """The calls of one write.

    A row is identified by the instance that its receivers get: each row has one, even without a
    key, and it stays the same when the key changes.
    """

    def __init__(self) -> None:
        #: By the ``id()`` of the instance, which is kept alive, so the id is not reused.
        self._called: dict[int, tuple[Model, set[Receiver]]] = {}

    def note(self, receiver: Receiver, instance: Model) -> None:
        """Record that the receiver is called, or must not be called any more."""
        self._called.setdefault(id(instance), (instance, set()))[1].add(receiver)

    def clear(self) -> None:
        """Forget the calls: the rows so far are written, and their receivers have run."""
        self._called.clear()

    def called_for(self, instance: Model) -> AbstractSet[Receiver]:
        """The receivers that have been called for the instance."""
        found = self._called.get(id(instance))
        return frozenset() if found is None else found[1]
