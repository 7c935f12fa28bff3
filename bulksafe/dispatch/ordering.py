"""Turns deliveries into calls, in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.db.models.signals import m2m_changed

from bulksafe.declarations.order import in_order, meant_by
from bulksafe.dispatch.calls import Call, m2m_group
from bulksafe.outbox.events import DELETED, INSERTED

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.changes import Change
    from bulksafe.outbox.events import Event


@dataclass(frozen=True)
class Delivery:
    """A change on its way to a receiver.

    Attributes:
        error: why it cannot be called, or None.
    """

    receiver: Receiver
    change: Change
    error: Exception | None = None


def calls(deliveries: Sequence[Delivery]) -> list[Call]:
    """The calls, in their order.

    Event by event, and for each the receivers in their order, as for per-row saves. A receiver with
    ``batch=True`` is called once after all events, followed by the receivers declared after it. A
    delivery with an error keeps its place: the calls before it do not wait for it, and it joins
    none of them.
    """
    found: list[Call] = []
    readable: list[Delivery] = []
    for delivery in deliveries:
        if delivery.error is None:
            readable.append(delivery)
            continue
        found += _calls(readable)
        found.append(Call(delivery.receiver, [delivery.change], delivery.error))
        readable = []
    return found + _calls(readable)


def _calls(deliveries: Sequence[Delivery]) -> list[Call]:
    found: list[Call] = []
    for stage in _stages(deliveries):
        if stage[0].receiver.batch:
            found += _batch_calls(stage)
        else:
            found += _single_calls(stage)
    return found


def split_at_batches(
    ordered: Sequence[Receiver],
) -> tuple[list[Receiver], list[Receiver]]:
    """The row-by-row receivers, and the batch receivers with all receivers after them.

    Args:
        ordered: in calling order.
    """
    first: list[Receiver] = []
    rest: list[Receiver] = []
    for receiver in ordered:
        before = {other for ref in receiver.after for other in meant_by(ref, ordered)}
        (rest if receiver.batch or before.intersection(rest) else first).append(receiver)
    return first, rest


def _stages(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Alternating stages: receivers that run event by event, then a batch receiver."""
    levels = _levels(deliveries)
    for level in sorted({levels[d.receiver] for d in deliveries}):
        here = [d for d in deliveries if levels[d.receiver] == level]
        singles = [d for d in here if not d.receiver.batch]
        if singles:
            yield singles
        for receiver in dict.fromkeys(d.receiver for d in here if d.receiver.batch):
            yield [d for d in here if d.receiver is receiver]


def _levels(deliveries: Sequence[Delivery]) -> dict[Receiver, int]:
    """The number of batch stages before each receiver."""
    receivers = list(dict.fromkeys(delivery.receiver for delivery in deliveries))
    levels: dict[Receiver, int] = {}
    for receiver in in_order(receivers):
        before = [o for ref in receiver.after for o in meant_by(ref, receivers) if o in levels]
        levels[receiver] = max((levels[other] + other.batch for other in before), default=0)
    return levels


def _batch_calls(stage: Sequence[Delivery]) -> list[Call]:
    receiver = stage[0].receiver
    listed = _coalesced(stage) if receiver.coalesce else stage
    return [Call(receiver, [delivery.change for delivery in listed])]


def _single_calls(stage: Sequence[Delivery]) -> list[Call]:
    groups: list[list[Delivery]] = []
    # Only the last group of each instance may grow: removing and adding again makes two groups.
    last: dict[Hashable, tuple[Hashable, list[Delivery]]] = {}
    for delivery in _coalesced(stage):
        group: list[Delivery] = []
        if delivery.receiver.signal is m2m_changed:
            key = m2m_group(delivery.change)
            owner = delivery.receiver, delivery.change.event.row
            if owner in last and last[owner][0] == key:
                group = last[owner][1]
            last[owner] = key, group
        if not group:
            groups.append(group)
        group.append(delivery)
    return [Call(group[0].receiver, [d.change for d in group]) for group in groups]


def _coalesced(stage: Sequence[Delivery]) -> list[Delivery]:
    """One delivery for all waiting changes of a row, if the receiver has ``coalesce``."""
    if not any(delivery.receiver.coalesce for delivery in stage):
        return list(stage)
    last: dict[Hashable, Delivery] = {}
    done: list[Delivery] = []
    for delivery in stage:
        if not delivery.receiver.coalesce:
            done.append(delivery)
            continue
        key = delivery.receiver, delivery.change.event.row
        earlier = last.get(key)
        if earlier is not None:
            done.remove(earlier)
            delivery = _joined(earlier, delivery)  # noqa: PLW2901
        last[key] = delivery
        done.append(delivery)
    return done


def _joined(earlier: Delivery, later: Delivery) -> Delivery:
    """One change from the old row of the first to the new row of the last."""
    one, other = earlier.change, later.change
    operation = other.event.operation
    if one.created and operation != DELETED:
        operation = INSERTED
    event = replace(
        other.event,
        operation=operation,
        first=one.event.before,
        amended=_amended(one.event, other.event),
    )
    change = replace(other, event=event, old_image=one.old_image, _instances={})
    return replace(later, change=change)


def _amended(one: Event, other: Event) -> dict[str, str]:
    """The image amendments of two joined changes: before the first, after the last."""
    sides = {"old": one.amended or {}, "new": other.amended or {}}
    return {side: texts[side] for side, texts in sides.items() if side in texts}
