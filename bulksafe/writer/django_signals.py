"""Handles signals sent by Django, which arrive through ``connecting``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models.signals import m2m_changed

from bulksafe import call_stack
from bulksafe.dispatch import arguments
from bulksafe.dispatch.recursion import Write, must_call
from bulksafe.writer import switched, uncaptured
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.early import early_arguments
from bulksafe.writer.instance_scopes import Deleting, InHand, Saving

if TYPE_CHECKING:
    from bulksafe.dispatch.changes import Change
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.connecting import Connected
    from bulksafe.writer.session import Session
    from bulksafe.writer.switched import State


def sent(session: Session, connected: Connected, named: dict[str, Any]) -> None:
    """Handle a Django signal for a critical receiver."""
    receiver, instance = connected.receiver, named.get("instance")
    if switched.is_listed(connected.model) and not _sent_by_capture(session, connected, named):
        return
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


def _sent_by_capture(session: Session, connected: Connected, named: dict[str, Any]) -> bool:
    """Whether a receiver in rollout is to be handled as one with a capture; else it is done."""
    state = switched.state(session.connection, connected.model)
    if state is None and not connected.receiver.is_inline:
        # Sent manually, without a write.
        with switched.decided([connected.model], session.alias):
            if switched.is_off(session.connection, connected.model):
                _send(session, connected, named, None)
        return False
    if state is None or not state.is_off:
        return connected.receiver.is_inline
    _sent_as_plain(session, state, connected, named)
    return False


def _sent_as_plain(
    session: Session, state: State, connected: Connected, named: dict[str, Any]
) -> None:
    """Call a receiver as a plain receiver of the signal, while the capture is off."""
    receiver = connected.receiver
    if receiver.signal is m2m_changed:
        # After the commit, there are no pre_ actions.
        if receiver.is_inline or named["action"].startswith("post_"):
            _send(session, connected, named, None)
    elif receiver.signal_name.startswith("pre_"):
        instance = named["instance"]
        extra = early_arguments(receiver, [instance], session.alias).get(id(instance))
        if extra is not None:
            _send(session, connected, {**named, **extra}, None)
    else:
        change = uncaptured.change_for(receiver, state, named, session.alias)
        if change is not None:
            _send(session, connected, named, change)


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
    change: Change | None,
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
