"""Every declared receiver, and those of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from django.apps import apps
from django.db import models

from bulksafe.declarations.options import AFTER_COMMIT, IN_TRANSACTION, Lane
from bulksafe.declarations.receiver import Receiver
from bulksafe.declarations.signals import Sender

#: Every declared receiver, in the order of declaration.
receivers: list[Receiver] = []

#: Told of each receiver when the models are loaded; bulksafe.declarations.capture puts captures on.
listeners: list[Callable[[Receiver], None]] = []


def add(receiver: Receiver) -> None:
    """Register; a second registration of the same function under the same name replaces it.

    For another signal or another sender it is no second one: it would silence the first. The system
    checks say that two receivers have one name.
    """
    for index, other in enumerate(receivers):
        if (
            other.name == receiver.name
            and other.signal == receiver.signal
            and other.senders == receiver.senders
            and _same_function(other, receiver)
        ):
            receivers[index] = receiver
            break
    else:
        receivers.append(receiver)
    _changed()
    if apps.models_ready:
        for tell in listeners:
            tell(receiver)


_changes = 0


def _changed() -> None:
    global _changes  # noqa: PLW0603
    _changes += 1


def changes() -> int:
    """How often ``receivers`` has changed: what is made from it is made anew then."""
    return _changes


def _same_function(one: Receiver, other: Receiver) -> bool:
    """Whether it is one function, perhaps from a module that was imported twice."""
    if one.function is other.function:
        return True
    if isinstance(one.function, Sender) or isinstance(other.function, Sender):
        return one.function == other.function and one.when == other.when
    names = [(r.module, getattr(r.function, "__qualname__", None)) for r in (one, other)]
    return names[0] == names[1] and "<lambda>" not in str(names[0][1])


def by_name(name: str) -> Receiver | None:
    return next((receiver for receiver in receivers if receiver.name == name), None)


def after_commit() -> list[Receiver]:
    """The receivers that are declared to run after the commit."""
    return [receiver for receiver in receivers if receiver.run == AFTER_COMMIT]


def inline() -> list[Receiver]:
    """The receivers that run in the writer's transaction."""
    return [receiver for receiver in receivers if receiver.is_inline]


def listened() -> list[Receiver]:
    """The receivers that the listener may have to run."""
    return [receiver for receiver in receivers if receiver.is_listened]


def captured() -> list[Receiver]:
    """The receivers whose tables are captured."""
    return [receiver for receiver in receivers if receiver.run in {AFTER_COMMIT, IN_TRANSACTION}]


def lanes() -> set[Lane]:
    """The lanes of the receivers that the listener runs."""
    return {(receiver.queue, receiver.atomic) for receiver in listened()}


def of_model(model: type[models.Model], among: Sequence[Receiver] | None = None) -> list[Receiver]:
    """The receivers of the table of ``model``, in the order of declaration.

    Historical models of migrations stand for the model of the same label.

    Args:
        among: where to look; by default all that are captured for.
    """
    label = (model._meta.concrete_model or model)._meta.label_lower
    return [
        receiver
        for receiver in (captured() if among is None else among)
        if receiver.is_called_for(label)
    ]


@contextmanager
def isolated() -> Iterator[None]:
    """No receivers but those that the block declares, and no captures for them: for tests."""
    kept = list(receivers), list(listeners)
    receivers.clear()
    listeners.clear()
    _changed()
    try:
        yield
    finally:
        receivers[:], listeners[:] = kept
        _changed()
