"""Routes changes to receivers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from bulksafe.declarations import order, receivers, signals
from bulksafe.dispatch.sources import sources
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED
from bulksafe.planning.capture import condition_id, condition_of
from bulksafe.rendering.names import set_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.outbox.events import Event, Replay

_OPERATIONS = {
    INSERTED: signals.INSERT,
    UPDATED: signals.UPDATE,
    DELETED: signals.DELETE,
}


#: A table, an operation, and whether the event is handed over from the writer's transaction.
_Key: TypeAlias = tuple[int, str, bool]


@dataclass(frozen=True)
class Route:
    """A receiver, and the condition for its changes."""

    receiver: Receiver
    condition: str | None
    #: The id that an event stores if it met the condition.
    condition_id: str | None


@dataclass
class Routes:
    """The receivers of some queues, by the changes that they are called for.

    Attributes:
        using: the database.
        queues: the queues that are served; None for all.
        atomic: selects receivers with this value of ``atomic``; None for all.
    """

    using: str
    queues: Collection[str] | None = None
    atomic: bool | None = None
    models: dict[int, type[Model]] = field(init=False)
    _found: dict[_Key, list[Route]] = field(init=False, default_factory=dict)
    _asked: dict[_Key, str | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.models = sources(self.using)

    def serves(self, receiver: Receiver) -> bool:
        return (self.queues is None or receiver.queue in self.queues) and (
            self.atomic is None or receiver.atomic == self.atomic
        )

    def of(self, event: Event) -> Sequence[Route]:
        """The possible routes of the event, in receiver order."""
        key = event.source, event.operation, event.is_handed_over
        if key not in self._found:
            self._found[key] = self._routes(*key)
        return self._found[key]

    def replayed(self, event: Event, replay: Replay) -> list[Route]:
        """The route of a replayed event, regardless of the receiver's condition."""
        receiver = self._replayed(event, replay)
        return [Route(receiver, None, None)] if receiver and self.serves(receiver) else []

    def lacks(self, event: Event, replay: Replay) -> bool:
        """Whether a replayed event belongs to this lane, and this code has no such receiver."""
        return (
            self._replayed(event, replay) is None
            and (self.queues is None or replay.queue in self.queues)
            and (self.atomic is None or replay.atomic == self.atomic)
        )

    def _replayed(self, event: Event, replay: Replay) -> Receiver | None:
        receiver = receivers.by_name(replay.receiver)
        if receiver is None or not receiver.is_listened:
            return None
        return receiver if self.models[event.source] in receiver.models() else None

    def asked(self, event: Event) -> str | None:
        """The id of the condition set that a current trigger would evaluate for the event.

        Includes all queues: triggers do not distinguish queues. None if there are no conditions.
        """
        key = event.source, event.operation, event.is_handed_over
        if key not in self._asked:
            model = self.models[event.source]
            wanted = receivers.is_inline if event.is_handed_over else receivers.is_after_commit
            self._asked[key] = asked_of(routes_of(model, event.operation, wanted))
        return self._asked[key]

    def _routes(self, source: int, operation: str, is_handed_over: bool) -> list[Route]:
        model = self.models.get(source)
        if model is None:
            return []

        def wanted(receiver: Receiver) -> bool:
            is_own = receiver.is_inline if is_handed_over else receivers.is_after_commit(receiver)
            return is_own and receiver.is_listened and self.serves(receiver)

        return routes_of(model, operation, wanted)


def routes_of(
    model: type[Model], operation: str, wanted: Callable[[Receiver], bool]
) -> list[Route]:
    """The possible routes of a change of a row of ``model``, in receiver order.

    Args:
        operation: in the format of events, ``"I"``, ``"U"`` or ``"D"``.
        wanted: filters the receivers.
    """
    name = _OPERATIONS[operation]
    found = []
    for receiver in order.in_order(receivers.of_model(model, wanted)):
        if name in receiver.operations:
            condition = condition_of(receiver, model, name)
            found.append(Route(receiver, condition, condition and condition_id(condition)))
    return found


def asked_of(routes: Sequence[Route]) -> str | None:
    """The id of the routes' condition set, which a trigger stores; None without conditions."""
    ids = {route.condition_id for route in routes if route.condition_id}
    return set_id(ids) if ids else None
