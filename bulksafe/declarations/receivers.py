"""Every declared receiver, and those of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter

from django.apps import apps
from django.db import models

from bulksafe.declarations.options import AFTER_COMMIT, IN_TRANSACTION, Lane
from bulksafe.declarations.receiver import Receiver, is_same_callable
from bulksafe.declarations.signals import Sender

#: Every declared receiver, in the order of declaration.
receivers: list[Receiver] = []

#: Called with each receiver that is declared after the models are loaded. One attaches captures.
listeners: list[Callable[[Receiver], None]] = []


def add(receiver: Receiver) -> None:
    """Register; a second registration of the same function under the same name replaces it.

    For another signal or another sender it is no second one: it would silence the first.
    """
    for index, other in enumerate(receivers):
        if _is_again(other, receiver):
            receivers[index] = receiver
            break
    else:
        receivers.append(receiver)
    changed = _lengthen_names(receiver.given_name) or [receiver]
    _changed()
    if apps.models_ready:
        for listener in listeners:
            for one in changed:
                listener(one)


def _is_again(other: Receiver, receiver: Receiver) -> bool:
    return (
        other.given_name == receiver.given_name
        and other.signal == receiver.signal
        and other.senders == receiver.senders
        and has_same_options(other, receiver)
        and _same_function(other, receiver)
    )


def _lengthen_names(given_name: str) -> list[Receiver]:
    """Add sender and signal to the names of receivers that share a ``dispatch_uid``.

    To all of them: the order of imports may change, and an event that is parked for one must not go
    to the other.

    Returns:
        those that get a longer name now.
    """
    found = [n for n, one in enumerate(receivers) if one.given_name == given_name]
    if len({receivers[index].full_name for index in found}) < 2:
        return []
    short = [n for n in found if receivers[n].name != receivers[n].full_name]
    for index in short:
        receivers[index] = replace(receivers[index], name=receivers[index].full_name)
    return [receivers[index] for index in short]


_changes = 0


def _changed() -> None:
    global _changes  # noqa: PLW0603
    _changes += 1


def changes() -> int:
    """How often ``receivers`` has changed: what is made from it is made anew then."""
    return _changes


def _same_function(one: Receiver, other: Receiver) -> bool:
    """Whether it is one function, perhaps from a module that was imported twice."""
    if is_same_callable(one.function, other.function):
        return True
    if isinstance(one.function, Sender) or isinstance(other.function, Sender):
        return one.function == other.function
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
    called = _called_for(label).once
    return [one for one in (captured() if among is None else among) if one in called]


@dataclass(frozen=True)
class _Called:
    """The receivers of one label.

    Attributes:
        models: all models that there were when they were found.
        changes: what ``changes()`` was then.
        every: all of them, in the order of declaration.
        once: those of them that no earlier one repeats.
    """

    models: object
    changes: int
    every: tuple[Receiver, ...]
    once: frozenset[Receiver]


#: By label: each write asks for them.
_called: dict[str, _Called] = {}


def _called_for(label: str) -> _Called:
    """What is known of a label, kept until a receiver or a model is declared."""
    known = apps.get_models(include_auto_created=True) if apps.models_ready else None
    kept = _called.get(label)
    if kept is None or known is None or kept.models is not known or kept.changes != _changes:
        every = tuple(one for one in receivers if one.is_called_for(label))
        once = frozenset(one for one in every if _earlier(one, label, every) is None)
        kept = _called[label] = _Called(known, _changes, every, once)
    return kept


def earlier_of(receiver: Receiver, label: str) -> Receiver | None:
    """The earlier declaration that calls the same function for the writes of a model.

    A write has one sender in Django, which here may be named in several ways: as a model, a proxy,
    an abstract base. To name the same one twice with two uids asks for two calls, there and here.
    """
    return _earlier(receiver, label, _called_for(label).every)


def _earlier(receiver: Receiver, label: str, among: Sequence[Receiver]) -> Receiver | None:
    for other in among:
        if other is receiver:
            return None
        if (
            is_same_callable(other.function, receiver.function)
            and (other.signal, other.run) == (receiver.signal, receiver.run)
            and (
                other.uid == receiver.uid
                or other.senders_of(label).isdisjoint(receiver.senders_of(label))
            )
        ):
            return other
    return None


#: Options without which a second declaration is the first one again.
_COMPARED = attrgetter(
    *"run when batch queue atomic max_attempts on_dead timeout coalesce otherwise".split(),
    "row_by_row",
)


def has_same_options(one: Receiver, other: Receiver) -> bool:
    return bool(_COMPARED(one) == _COMPARED(other))


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
