"""Handles signals sent by Django, which arrive through ``connecting``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.signals import m2m_changed

from bulksafe import call_stack
from bulksafe.dispatch import arguments
from bulksafe.dispatch.recursion import Write, must_call
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.early import early_arguments
from bulksafe.writer.instance_scopes import Deleting, InHand, Saving

if TYPE_CHECKING:
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.connecting import Connected
    from bulksafe.writer.session import Session


def sent(session: Session, connected: Connected, named: dict[str, Any]) -> None:
    """Handle a Django signal for a critical receiver."""
    receiver, instance = connected.receiver, named.get("instance")
    if receiver.signal is m2m_changed:
        _send(session, connected, named, None)
        return
    scope = _scope_of(session, instance)
    if scope is None:
        # Sent manually, without a write.
        _send(session, connected, named, None)
    elif receiver.signal_name.startswith("pre_"):
        _sent_before(session, scope, connected, named, instance)
    else:
        _sent_after(session, scope, connected, named, instance)


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
    connected: Connected,
    named: dict[str, Any],
    instance: Any,
) -> None:
    """Call a receiver before the write for an instance in hand, once."""
    receiver = connected.receiver
    scope.ledger.note(receiver, instance)
    extra = early_arguments(receiver, [instance], session.alias).get(id(instance))
    if extra is not None:
        _send(session, connected, {**named, **extra}, None)


def _sent_after(
    session: Session, scope: InHand, connected: Connected, named: dict[str, Any], instance: Any
) -> None:
    receiver = connected.receiver
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
    _send(session, connected, named, change)


def _send(
    session: Session,
    connected: Connected,
    named: dict[str, Any],
    change: InlineChange | None,
) -> None:
    receiver = connected.receiver
    instance = named["instance"]
    row = row_of_instance(instance)
    is_new = named.get("created") is True or instance._state.adding
    calls = call_stack.calls()
    if not must_call(
        receiver, Write(calls, type(instance), row, change, is_sent=True, is_new=is_new)
    ):
        return
    session.call_with(receiver, arguments.of_sent(receiver, connected.model, named, change), row)
