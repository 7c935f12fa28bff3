"""The registry of declared receivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter

from django.apps import apps
from django.db import models

from bulksafe.declarations.options import AFTER_COMMIT, DEFAULT_LANE, IN_TRANSACTION, Lane
from bulksafe.declarations.receiver import Receiver, is_same_callable
from bulksafe.declarations.signals import Sender

#: Every declared receiver, in the order of declaration.
receivers: list[Receiver] = []

#: Called with each receiver that is declared after the models are loaded. Attaching captures is
#: one.
listeners: list[Callable[[Receiver], None]] = []


def add(receiver: Receiver) -> None:
    """Register; a second registration of the same function under the same name replaces it.

    A registration for a different signal or sender does not replace the first.
    """
    again = next((n for n, one in enumerate(receivers) if _is_again(one, receiver)), None)
    if again is None:
        receivers.append(receiver)
    else:
        receivers[again] = receiver
    changed = _lengthen_names(receiver.given_name) or [receiver]
    _changed()
    if again is None and changed == [receiver]:
        _index.extend(receiver)
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

    All of them are renamed: the import order may change, and an event parked for one must not go to
    another.

    Returns:
        the renamed receivers.
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
    """Version counter; changes whenever ``receivers`` changes."""
    return _changes


def _same_function(one: Receiver, other: Receiver) -> bool:
    """Whether both are the same function, even if its module was imported twice."""
    if is_same_callable(one.function, other.function):
        return True
    if isinstance(one.function, Sender) or isinstance(other.function, Sender):
        return one.function == other.function
    names = [(r.module, getattr(r.function, "__qualname__", None)) for r in (one, other)]
    return names[0] == names[1] and "<lambda>" not in str(names[0][1])


def by_name(name: str) -> Receiver | None:
    return next((receiver for receiver in receivers if receiver.name == name), None)


def is_after_commit(receiver: Receiver) -> bool:
    """Whether it is declared to run after the commit."""
    return receiver.run == AFTER_COMMIT


def is_inline(receiver: Receiver) -> bool:
    """Whether it runs in the writing transaction."""
    return receiver.is_inline


def inline() -> list[Receiver]:
    return list(filter(is_inline, receivers))


def listened() -> list[Receiver]:
    """The receivers that the listener may have to run."""
    return [receiver for receiver in receivers if receiver.is_listened]


def captured() -> list[Receiver]:
    """The receivers whose tables are captured."""
    return list(filter(is_captured, receivers))


def lanes() -> set[Lane]:
    """The lanes of the receivers that the listener runs."""
    return {(receiver.queue, receiver.atomic) for receiver in listened()}


def served_queues() -> list[str]:
    """The queues that a listener of this code serves: of all receivers, and the default queue."""
    return sorted({queue for queue, _ in (DEFAULT_LANE, *lanes())})


def is_captured(receiver: Receiver) -> bool:
    """Whether its tables are captured."""
    return receiver.run in {AFTER_COMMIT, IN_TRANSACTION}


def of_model(
    model: type[models.Model], wanted: Callable[[Receiver], bool] = is_captured
) -> list[Receiver]:
    """The receivers of the table of ``model``, in the order of declaration.

    A historical model of a migration stands for the current model with the same label.

    Args:
        wanted: filters the receivers.
    """
    label = (model._meta.concrete_model or model)._meta.label_lower
    return [
        receiver
        for receiver in of_label(label)
        if wanted(receiver) and not is_repeated(receiver, label)
    ]


def of_label(label: str) -> Sequence[Receiver]:
    """The receivers of the model with this lower-case label, including repeated ones."""
    if not apps.models_ready:
        return [receiver for receiver in receivers if receiver.is_called_for(label)]
    return _index.of(label)


class _Index:
    """The receivers by the labels of their models, for one state of both registries."""

    def __init__(self) -> None:
        self._changes = -1
        self._count = 0
        self._models: object = None
        self._by_label: dict[str, list[Receiver]] = {}

    def of(self, label: str) -> Sequence[Receiver]:
        # Django makes this list again when a model is declared.
        known = apps.get_models(include_auto_created=True)
        if self._state() != (_changes, len(receivers)) or self._models is not known:
            self._changes, self._count = _changes, 0
            self._models, self._by_label = known, {}
            for receiver in receivers:
                self._add(receiver)
        return self._by_label.get(label, ())

    def extend(self, receiver: Receiver) -> None:
        """Add a new receiver without building the index again.

        Each declaration looks up the receivers of its models; rebuilding the index each time took
        seconds for some hundred receivers.
        """
        if self._state() == (_changes - 1, len(receivers) - 1) and apps.models_ready:
            self._changes = _changes
            self._add(receiver)

    def _state(self) -> tuple[int, int]:
        return self._changes, self._count

    def _add(self, receiver: Receiver) -> None:
        self._count += 1
        for label in receiver.labels():
            self._by_label.setdefault(label, []).append(receiver)


_index = _Index()


def is_repeated(receiver: Receiver, label: str) -> bool:
    """Whether an earlier declaration calls the same function for the writes of a model.

    Several senders may cover one model: the model, a proxy, an abstract base. Registering the same
    sender twice with two uids means two calls, as in Django.
    """
    return earlier_of(receiver, label) is not None


def earlier_of(receiver: Receiver, label: str) -> Receiver | None:
    """That earlier declaration."""
    for other in of_label(label):
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


#: Options that must match for a second declaration to repeat the first.
_COMPARED = attrgetter(
    *"run when batch queue atomic max_attempts on_dead timeout coalesce otherwise".split(),
    "row_by_row",
)


def has_same_options(one: Receiver, other: Receiver) -> bool:
    return bool(_COMPARED(one) == _COMPARED(other))


@contextmanager
def isolated() -> Iterator[None]:
    """For tests: start a block with an empty registry, and attach no captures."""
    kept = list(receivers), list(listeners)
    receivers.clear()
    listeners.clear()
    _changed()
    try:
        yield
    finally:
        receivers[:], listeners[:] = kept
        _changed()
