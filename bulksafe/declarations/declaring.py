"""``critical``: declares a receiver that no write path skips."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from bulksafe.declarations.misuse import checked, refuse_method
from bulksafe.declarations.naming import default_name, full_name, uid_text
from bulksafe.declarations.options import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_QUEUE,
    IN_TRANSACTION,
    REFUSE,
    Backoff,
    OnDead,
    Otherwise,
    Run,
)
from bulksafe.declarations.receiver import Receiver
from bulksafe.declarations.receivers import add
from bulksafe.declarations.senders import Senders, listed_senders
from bulksafe.declarations.signals import OPERATIONS, signal_name

if TYPE_CHECKING:
    from django.db.models import Q
    from django.db.models.expressions import BaseExpression
    from django.dispatch import Signal

_Receiver = TypeVar("_Receiver", bound="Callable[..., object]")


@checked
def critical(
    signal: Signal | Sequence[Signal],
    *,
    sender: Senders = None,
    run: Run = IN_TRANSACTION,
    when: Q | BaseExpression | None = None,
    after: Iterable[Callable[..., object] | str] = (),
    batch: bool = False,
    weak: bool = True,
    dispatch_uid: Hashable = None,
    queue: str = DEFAULT_QUEUE,
    atomic: bool = True,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    on_dead: OnDead = "block",
    timeout: float | None = None,
    backoff: Backoff = None,
    coalesce: bool = False,
    otherwise: Otherwise = REFUSE,
    row_by_row: bool | None = None,
    app_label: str | None = None,
) -> Callable[[_Receiver], _Receiver]:
    """Declare a signal receiver that no write path skips. Replaces ``@receiver``.

    The receiver is called with the arguments that Django's signal has, and with each of ``old``
    (the row before, or None), ``changed`` (a frozenset of field names), ``event_id`` and
    ``context`` that is among its parameters. Its ``**kwargs`` alone holds Django's arguments only.

    ``manage.py check`` reports what is wrong with the values of options.

    Args:
        signal: ``pre_save``, ``post_save``, ``pre_delete``, ``post_delete`` or ``m2m_changed`` of
            ``django.db.models.signals``, or a list of them.
        sender: the model, its label ``"shop.Order"``, an abstract base (which stands for every
            concrete child), a proxy (which stands for its table), ``Article.tags.through``, all
            models of an app (``bulksafe.models_of("shop")``), or a list of these.
        run: ``"in_transaction"``: in the writer's transaction, for every write of this project's
            Django; an exception of the receiver propagates to the writing call.
            ``"after_commit"``: by the listener daemon, once the writer's transaction is
            committed, on every write path.
        when: a ``Q`` over ``old__…`` and ``new__…``; evaluated in the trigger, so rows that do not
            match cost nothing. A test of a missing row (the old row of an insert, the new row of a
            delete) is false, and its negation true.
        after: receivers that are to run before this one, as functions or names.
        batch: call it once per batch, with ``instances`` and ``events`` in place of ``instance``.
        weak: accepted for compatibility with ``@receiver``, without effect: a critical receiver is
            always referenced strongly.
        dispatch_uid: the receiver's lasting name, as text or anything hashable. For several
            signals, the name of each signal is added. Receivers for different signals or senders
            may share one; sender and signal are added to it. The default consists of the module,
            the qualified name, the sender and the signal.
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
        otherwise: with ``run="in_transaction"``, how writes of other programs are handled:
            ``"refuse"`` lets the database refuse its commit, ``"after_commit"`` has the listener
            run the receiver afterwards, ``"observe"`` records the write and does not run it.
        row_by_row: whether a bulk write stores each row before the receiver is called for the
            next. By default bulksafe watches the receivers' statements to determine whether the
            order matters. ``False`` states that it does not, as for a receiver that computes a
            parent's total from all its rows: the write stays in bulk. ``True`` always goes row by
            row.
        app_label: the app whose migrations get the triggers; by default the one whose module
            declares the receiver.

    Raises:
        TypeError: there is no such option, ``critical`` has no signal, or the function is a method.
    """

    declared_in = sys._getframe(2).f_globals.get("__name__", "")

    def decorate(function: _Receiver) -> _Receiver:
        refuse_method(function)
        signals = signal if isinstance(signal, list | tuple) else (signal,)
        given = listed_senders(sender)
        for one in signals:
            names = _names(function, given, one, dispatch_uid, is_one_of=len(signals) > 1)
            add(
                Receiver(
                    function=function,
                    name=names[0],
                    signal=one,
                    senders=given,
                    run=run,
                    when=when,
                    after=_listed(after),
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
                    uid=dispatch_uid,
                    given_name=names[0],
                    full_name=names[1],
                    module=getattr(function, "__module__", "") or "",
                    declared_in=declared_in,
                    app_label=app_label or "",
                    operations=OPERATIONS.get(signal_name(one), ()),
                )
            )
        return function

    return decorate


def _listed(references: object) -> tuple[Any, ...]:
    """The items of ``after=``, which may be a single one."""
    is_many = isinstance(references, Iterable) and not isinstance(references, str)
    return tuple(references) if is_many else (references,)  # type: ignore[arg-type]


def _names(
    function: object, senders: Sequence[object], signal: object, uid: Hashable, *, is_one_of: bool
) -> tuple[str, str]:
    """The receiver's name, and its longer name for a shared ``dispatch_uid``.

    Args:
        is_one_of: whether the declaration names several signals.
    """
    if not uid:
        name = default_name(function, senders, signal)
        return name, name
    text = uid_text(uid)
    name = f"{text}.{signal_name(signal)}" if is_one_of else text
    return name, full_name(text, senders, signal)
