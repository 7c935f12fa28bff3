"""Which receivers a change goes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulksafe.declarations import order, receivers
from bulksafe.dispatch.sources import sources
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED
from bulksafe.planning.capture import condition_id, condition_of
from bulksafe.rendering.names import set_id

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.outbox.events import Event

_OPERATIONS = {
    INSERTED: receivers.INSERT,
    UPDATED: receivers.UPDATE,
    DELETED: receivers.DELETE,
}


@dataclass(frozen=True)
class Route:
    """A receiver, and the condition under which a change goes there."""

    receiver: Receiver
    condition: str | None
    #: The id under which an event notes that it met the condition.
    condition_id: str | None


@dataclass
class Routes:
    """The receivers of some queues, by the changes that they are called for.

    Attributes:
        using: the database.
        queues: the queues that are served; None for all.
        atomic: whether the receivers that run in a transaction are meant, or the others, or all.
    """

    using: str
    queues: Collection[str] | None = None
    atomic: bool | None = None
    models: dict[int, type[Model]] = field(init=False)
    _found: dict[tuple[int, str], list[Route]] = field(init=False, default_factory=dict)
    _asked: dict[tuple[int, str], str | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.models = sources(self.using)

    def serves(self, receiver: Receiver) -> bool:
        return (self.queues is None or receiver.queue in self.queues) and (
            self.atomic is None or receiver.atomic == self.atomic
        )

    def of(self, event: Event) -> Sequence[Route]:
        """Where the event may go, in the order of the receivers."""
        key = event.source, event.operation
        if key not in self._found:
            self._found[key] = self._routes(*key)
        return self._found[key]

    def asked(self, event: Event) -> str | None:
        """The id of the conditions that the event would be asked if it were captured now.

        Those of all queues: the trigger knows of none. None if there are no conditions.
        """
        key = event.source, event.operation
        if key not in self._asked:
            model = self.models[event.source]
            name = _OPERATIONS[event.operation]
            routes = [
                self._route(receiver, model, name)
                for receiver in receivers.of_model(model)
                if name in receiver.operations
            ]
            ids = {route.condition_id for route in routes if route.condition_id}
            self._asked[key] = set_id(ids) if ids else None
        return self._asked[key]

    def _routes(self, source: int, operation: str) -> list[Route]:
        model = self.models.get(source)
        if model is None:
            return []
        name = _OPERATIONS[operation]
        listed = [
            receiver
            for receiver in order.in_order(receivers.of_model(model))
            if name in receiver.operations and self.serves(receiver)
        ]
        return [self._route(receiver, model, name) for receiver in listed]

    def _route(self, receiver: Receiver, model: type[Model], operation: str) -> Route:
        condition = condition_of(receiver, model, operation)
        return Route(receiver, condition, condition and condition_id(condition))
