"""Receivers that Django itself calls: what it sends comes in through ``connecting``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.signals import m2m_changed

from bulksafe.writer import telling
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.early import early_arguments
from bulksafe.writer.scopes import Deleting, InHand, Saving

if TYPE_CHECKING:
    from bulksafe.declarations import Receiver
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.connecting import Connected
    from bulksafe.writer.session import Session


def sent(session: Session, connected: Connected, named: dict[str, Any]) -> None:
    """A signal of Django's has come to a critical receiver."""
    receiver, instance = connected.receiver, named.get("instance")
    named = {"signal": receiver.signal, "sender": connected.model, **named}
    if receiver.signal is m2m_changed:
        _send(session, receiver, named, None)
        return
    scope = _scope_of(session, instance)
    if scope is None:
        # Sent by hand: there is no write to go with it.
        _send(session, receiver, named, None)
    elif receiver.signal_name.startswith("pre_"):
        _sent_before(session, scope, receiver, named, instance)
    else:
        _sent_after(session, scope, receiver, named, instance)


def _scope_of(session: Session, instance: Any) -> InHand | None:
    for scope in reversed(session.scopes):
        is_own = isinstance(scope, Saving) and scope.instance is instance
        if is_own or isinstance(scope, Deleting):
            assert isinstance(scope, InHand)  # noqa: S101
            return scope
    return None


def _sent_before(
    session: Session,
    scope: InHand,
    receiver: Receiver,
    named: dict[str, Any],
    instance: Any,
) -> None:
    """A receiver that comes before the write is called for an instance in hand, once."""
    scope.ledger.note(receiver, instance)
    extra = early_arguments(receiver, [instance], session.alias).get(id(instance))
    if extra is not None:
        _send(session, receiver, {**named, **extra}, None)


def _sent_after(
    session: Session, scope: InHand, receiver: Receiver, named: dict[str, Any], instance: Any
) -> None:
    scope.ledger.note(receiver, instance)
    session.gather(scope)
    change: InlineChange | None = None
    if isinstance(scope, Saving):
        change = scope.change_of_instance()
    elif isinstance(scope, Deleting):
        change = scope.change_of(instance)
    if change is not None and receiver not in change.met:
        change.done.add(receiver)
        return
    if change is None and receiver.when is not None:
        return
    if change is not None:
        change.done.add(receiver)
        change.take_in_hand(instance)
    _send(session, receiver, named, change)


def _send(
    session: Session,
    receiver: Receiver,
    named: dict[str, Any],
    change: InlineChange | None,
) -> None:
    row = row_of_instance(named["instance"])
    is_new = named.get("created") is True or named["instance"]._state.adding
    if not telling.is_sent_to(receiver, row, change, is_new=is_new):
        return
    named = {**telling.extra_arguments(receiver, change), **named}
    if receiver.batch and receiver.signal is not m2m_changed:
        instance = named.pop("instance")
        wanted = ("signal", "sender", "using")
        named = {key: named[key] for key in wanted if key in named}
        named |= {"instances": [instance], "events": [] if change is None else [change]}
    session.call_with(receiver, named, row)
