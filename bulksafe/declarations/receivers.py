"""``critical`` and ``Emit``: Python that must not be skipped, and on what it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from django.apps import apps
from django.db import models
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

_Receiver = TypeVar("_Receiver", bound="Callable[..., Any]")

#: How long a failed call waits: a number of seconds that doubles, the seconds of each attempt, or a
#: function of the number of failed attempts.
Backoff: TypeAlias = "float | Sequence[float] | Callable[[int], float] | None"

AFTER_COMMIT = "after_commit"
IN_TRANSACTION = "in_transaction"
IN_DATABASE = "in_database"

INSERT, UPDATE, DELETE = "INSERT", "UPDATE", "DELETE"

#: Django's signals by name, in the order in which Django sends them.
SIGNALS: dict[str, Any] = {
    "pre_save": pre_save,
    "post_save": post_save,
    "pre_delete": pre_delete,
    "post_delete": post_delete,
    "m2m_changed": m2m_changed,
}

#: The changes of a row that a signal is about.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "pre_save": (INSERT, UPDATE),
    "post_save": (INSERT, UPDATE),
    "pre_delete": (DELETE,),
    "post_delete": (DELETE,),
    "m2m_changed": (INSERT, DELETE),
}

#: What becomes of a write that no Django of this project has made: ``otherwise=``.
REFUSE = "refuse"

DEFAULT_QUEUE = "default"
DEFAULT_MAX_ATTEMPTS = 10

#: A queue's name, and whether its receivers run in a transaction: those that do not go on at a pace
#: of their own.
Lane: TypeAlias = tuple[str, bool]

#: The one that is served also where no receiver names it.
DEFAULT_LANE: Lane = (DEFAULT_QUEUE, True)


def signal_name(signal: object) -> str:
    """``"post_save"``; empty for what is none of the signals that have a critical form."""
    return next((name for name, known in SIGNALS.items() if known is signal), "")


@dataclass(frozen=True, eq=False)
class Receiver:
    """One function, called for the changes of the rows of one or more models.

    A declaration never raises: what is wrong with it is reported by ``manage.py check``.

    Attributes:
        function: what is called. Held strongly.
        name: its lasting name, under which parked events find it again.
        signal: the signal that it was declared for.
        senders: what was given as ``sender``: classes and labels.
        run: ``"after_commit"``, ``"in_transaction"`` or ``"in_database"``.
        when: a condition over the row's old and new state, evaluated in the trigger.
        after: receivers, or their names, that run before this one.
        batch: call it once for many events.
        queue: whose cursors it shares.
        atomic: run it in the transaction that also notes that it ran.
        max_attempts: how often it is tried for an event before that becomes a dead letter.
        on_dead: ``"block"`` or ``"skip"``: what a dead letter means for later events of the row.
        timeout: seconds after which a call is ended; None for the setting's.
        backoff: how long a failed call waits; None for the settings' delays.
        coalesce: changes of a row that wait together become one call.
        otherwise: ``"refuse"`` or ``"after_commit"``: for ``run="in_transaction"``, what becomes of
            a write that another program makes.
        row_by_row: each row is stored before the receiver is called for the next.
        has_uid: whether the name was given, not made.
        uid: what was given: the name, but for a receiver of several signals.
        module: where the function is.
        declared_in: the module that has called ``critical()``.
        app_label: the app whose migrations are to get the triggers; empty for the declaring one.
        argument: for ``Emit``, the keyword argument that carries the instance.
        operations: the changes that it is called for.
        unknown: options that were given and are none.
    """

    function: Callable[..., Any]
    name: str
    signal: Any
    senders: tuple[Any, ...]
    run: str = IN_TRANSACTION
    when: Any = None
    after: tuple[Any, ...] = ()
    batch: bool = False
    queue: str = DEFAULT_QUEUE
    atomic: bool = True
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    on_dead: str = "block"
    timeout: float | None = None
    backoff: Backoff = None
    coalesce: bool = False
    otherwise: str = REFUSE
    row_by_row: bool = False
    has_uid: bool = False
    uid: str = ""
    module: str = ""
    declared_in: str = ""
    app_label: str = ""
    argument: str = "instance"
    operations: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    _labels: set[str] = field(default_factory=set, init=False, repr=False)

    @cached_property
    def signal_name(self) -> str:
        return signal_name(self.signal)

    @cached_property
    def encoded_name(self) -> bytes:
        """Its name for shared memory, which many calls write to."""
        return self.name.encode()

    @property
    def is_inline(self) -> bool:
        """Whether it runs in the writer's transaction."""
        return self.run == IN_TRANSACTION

    @property
    def is_listened(self) -> bool:
        """Whether the listener may have to run it."""
        return self.run == AFTER_COMMIT or (self.is_inline and self.otherwise == AFTER_COMMIT)

    @property
    def is_emit(self) -> bool:
        return isinstance(self.function, Sender)

    def __repr__(self) -> str:
        return f"<critical receiver {self.name}>"

    def models(self) -> list[type[models.Model]]:
        """The concrete models whose rows it is called for; unknown senders are left out."""
        found: dict[type[models.Model], None] = {}
        for sender in self.senders:
            for model in resolve(sender):
                found[model] = None
        return list(found)

    def is_called_for(self, label: str) -> bool:
        """Whether the model of this label, in lower case, is one of ``models()``.

        Labels are kept, and no classes: this is asked for each pair of a receiver and a model. Of
        an abstract model, classes may be declared at any time.
        """
        if self._labels:
            return label in self._labels
        labels = {model._meta.label_lower for model in self.models()}
        if apps.models_ready and not any(map(_is_abstract, self.senders)):
            self._labels.update(labels)
        return label in labels


@dataclass(frozen=True)
class Sender:
    """What an ``Emit`` calls: sends its signal."""

    signal: Signal

    def __call__(self, sender: type[models.Model], **kwargs: Any) -> None:
        """Send to all receivers, then raise what they raised.

        Raises:
            ExceptionGroup: of the errors of the receivers; one bad receiver keeps no other from its
                call, and the event is tried again.
        """
        kwargs.pop("signal", None)
        sent = self.signal.send_robust(sender=sender, **kwargs)
        errors = [response for _, response in sent if isinstance(response, Exception)]
        if errors:
            raise ExceptionGroup("receivers of the signal failed", errors)


#: Sent by the listener when an event was given up. ``sender`` is the model, and the keyword
#: arguments are ``id`` (as in ``bulksafe status``), ``receiver`` (its name), ``key``, ``attempts``,
#: ``error``, ``event_id`` and ``using``. What its receivers raise is logged.
dead_letter = Signal()

#: Every declared receiver, in the order of declaration.
receivers: list[Receiver] = []

#: Told of each receiver when the models are loaded; bulksafe.declarations.capture puts captures on.
listeners: list[Callable[[Receiver], None]] = []


def resolve(sender: Any) -> list[type[models.Model]]:
    """The concrete models that ``sender`` stands for: none if it is unknown or has no table."""
    model: Any = sender
    if isinstance(sender, str):
        if sender.count(".") != 1:
            return []
        try:
            model = apps.get_model(sender)
        except LookupError:
            return []
    if not (isinstance(model, type) and issubclass(model, models.Model)):
        return []
    if model is models.Model:
        return []
    if model._meta.abstract:
        return [
            child
            for child in apps.get_models(include_auto_created=True)
            if issubclass(child, model) and _has_table(child) and not child._meta.proxy
        ]
    concrete = model._meta.concrete_model
    return [concrete] if concrete is not None and _has_table(concrete) else []


def _is_abstract(sender: Any) -> bool:
    meta = getattr(sender, "_meta", None)
    return meta is not None and bool(meta.abstract)


def _has_table(model: type[models.Model]) -> bool:
    return bool(model._meta.managed and not model._meta.swapped and not model._meta.abstract)


def label_of_sender(sender: Any) -> str:
    meta = getattr(sender, "_meta", None)
    return str(sender) if meta is None else str(meta.label)


def critical(
    signal: Any,
    *,
    sender: Any = None,
    run: str = IN_TRANSACTION,
    when: Any = None,
    after: Iterable[Any] = (),
    batch: bool = False,
    dispatch_uid: str | None = None,
    queue: str = DEFAULT_QUEUE,
    atomic: bool = True,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    on_dead: str = "block",
    timeout: float | None = None,
    backoff: Backoff = None,
    coalesce: bool = False,
    otherwise: str = REFUSE,
    row_by_row: bool = False,
    app_label: str | None = None,
    **unknown: Any,
) -> Callable[[_Receiver], _Receiver]:
    """Declare a signal receiver that no write path skips. Stands where ``@receiver`` stood.

    The receiver is called with the arguments that Django's signal has, and with ``old`` (the row
    before, or None), ``changed`` (a frozenset of field names), ``event_id`` and ``context``.

    What is wrong with the declaration is reported by ``manage.py check``, not raised here.

    Args:
        signal: ``pre_save``, ``post_save``, ``pre_delete``, ``post_delete`` or ``m2m_changed`` of
            ``django.db.models.signals``, or a list of them.
        sender: the model, its label ``"shop.Order"``, an abstract base (which stands for every
            concrete child), a proxy (which stands for its table), ``Article.tags.through``, or a
            list of these.
        run: ``"in_transaction"``: in the writer's transaction, for every write of this project's
            Django; what the receiver raises comes out of the call that wrote.
            ``"after_commit"``: by the listener daemon, once the writer's transaction is
            committed, whoever wrote.
        when: a ``Q`` over ``old__…`` and ``new__…``; evaluated in the trigger, so that rows which
            do not match cost nothing. A test on a row that is not there (the old one of an insert,
            the new one of a delete) is false, and its negation true.
        after: receivers that are to run before this one, as functions or names.
        batch: call it once per batch, with ``instances`` and ``events`` in place of ``instance``.
        dispatch_uid: the receiver's lasting name; for one of several signals the signal's name is
            added to it. The default is made of the module, the qualified name, the sender and the
            signal.
        queue: receivers of one queue wait for each other, those of different queues do not.
        atomic: False for effects outside the database, like HTTP: the receiver then runs outside a
            transaction and may be called twice with the same ``event_id`` after a crash.
        max_attempts: after so many failures an event becomes a dead letter.
        on_dead: ``"block"`` keeps later events of the row waiting behind a dead letter,
            ``"skip"`` goes on with them.
        timeout: seconds after which a call is ended: its statement is cancelled, its process
            replaced if need be, and the attempt counted. ``BULKSAFE["TIMEOUT"]`` by default.
        backoff: seconds before the second attempt, doubled for each further one; or a list of the
            seconds before each, the last of which holds for the rest; or a function that gets the
            number of failed attempts and returns seconds. The settings' ``RETRY_DELAY`` by default.
            ``raise bulksafe.RetryAfter(seconds)`` overrules it for one event.
        coalesce: changes of a row that wait together become one call with the last state.
        otherwise: what becomes of a write that another program makes, with
            ``run="in_transaction"``: ``"refuse"`` lets the database refuse its commit,
            ``"after_commit"`` has the listener run the receiver afterwards.
        row_by_row: store each row before the receiver is called for the next: for a ``post_*``
            receiver that looks at other rows of its own table.
        app_label: the app whose migrations get the triggers; by default the one whose module
            declares the receiver.
    """

    declared_in = sys._getframe(1).f_globals.get("__name__", "")

    def decorate(function: _Receiver) -> _Receiver:
        signals = signal if isinstance(signal, list | tuple) else (signal,)
        senders = sender if isinstance(sender, list | tuple | set) else (sender,)
        given = tuple(item for item in senders if item is not None)
        for one in signals:
            name = dispatch_uid or default_name(function, given, one)
            if dispatch_uid and len(signals) > 1:
                name = f"{dispatch_uid}.{signal_name(one)}"
            add(
                Receiver(
                    function=function,
                    name=str(name),
                    signal=one,
                    senders=given,
                    run=run,
                    when=when,
                    after=tuple(after) if isinstance(after, Iterable) else (after,),
                    batch=batch,
                    queue=queue,
                    atomic=atomic,
                    max_attempts=max_attempts,
                    on_dead=on_dead,
                    timeout=timeout,
                    backoff=backoff,
                    coalesce=coalesce,
                    otherwise=otherwise,
                    row_by_row=row_by_row,
                    has_uid=dispatch_uid is not None,
                    uid=str(dispatch_uid or ""),
                    module=getattr(function, "__module__", "") or "",
                    declared_in=declared_in,
                    app_label=app_label or "",
                    operations=OPERATIONS.get(signal_name(one), ()),
                    unknown=tuple(unknown),
                )
            )
        return function

    return decorate


def default_name(function: Any, senders: Sequence[Any], signal: Any) -> str:
    """``"shop.receivers.notify_warehouse@shop.Order.post_save"``."""
    module = getattr(function, "__module__", type(function).__module__)
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    labels = "+".join(label_of_sender(sender) for sender in senders) or "*"
    return f"{module}.{qualname}@{labels}.{signal_name(signal) or 'unknown'}"


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
