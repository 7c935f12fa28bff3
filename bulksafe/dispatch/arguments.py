"""The keyword arguments of a call: the signal's, and bulksafe's own that the receiver names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from bulksafe.compat import M2M_CHANGED_ARGUMENTS
from bulksafe.contexts import current
from bulksafe.declarations.through import link_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.models import ForeignKey, Model

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.changes import Change


@dataclass(frozen=True)
class Uncaptured:
    """Arguments for rows without a captured change.

    Attributes:
        created: whether they are new.
        update_fields: the written fields; None for all.
        origin: the origin of a deletion; None for each object itself.
    """

    created: bool = False
    update_fields: frozenset[str] | None = None
    origin: object = None


def of_changes(
    receiver: Receiver, changes: Sequence[Change], *, is_before: bool = False
) -> dict[str, Any]:
    """The arguments for captured changes: one, or several for ``batch=True`` and ``m2m_changed``.

    Args:
        is_before: whether this is the first of the two calls of an ``m2m_changed`` receiver.
    """
    last = changes[-1]
    if receiver.signal is m2m_changed:
        own = _own(receiver, last)
        if is_before and "event_id" in own:
            own["event_id"] = None
        links = _of_links(changes, "pre" if is_before else "post")
        return {**_of_signal(receiver, last.model, last.using), **links, **own}
    if receiver.batch:
        instances = [change.instance for change in changes]
        return of_batch(receiver, last.model, last.using, instances, changes)
    own = _own(receiver, last)
    return {
        **_of_signal(receiver, last.model, last.using),
        receiver.argument: last.instance,
        **_of_row(receiver, last),
        **own,
    }


def of_batch(
    receiver: Receiver,
    model: type[Model],
    using: str,
    instances: Sequence[Model],
    changes: Sequence[Change] = (),
) -> dict[str, Any]:
    """The arguments of a receiver with ``batch=True``."""
    return {
        **_of_signal(receiver, model, using),
        "instances": list(instances),
        "events": list(changes),
    }


def of_each_object(
    receiver: Receiver, model: type[Model], using: str, known: Uncaptured
) -> dict[str, Any]:
    """The arguments that are the same for all objects of a bulk write, for ``of_object()``."""
    return {**_of_signal(receiver, model, using), **_of_row(receiver, known)}


def of_object(
    receiver: Receiver,
    same: Mapping[str, Any],
    instance: Model,
    early: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments for one object of a bulk write.

    Args:
        same: what is the same for all objects.
        early: ``old`` and ``changed``, for a receiver before the write that names them.
    """
    named = {**same, "instance": instance}
    if receiver.extras:
        named |= _own(receiver, None)
        named |= early or {}
    if "origin" in named and named["origin"] is None:
        named["origin"] = instance
    return named


def of_sent(
    receiver: Receiver, model: type[Model], sent: Mapping[str, Any], change: Change | None
) -> dict[str, Any]:
    """The arguments for a signal that Django sends.

    Args:
        sent: Django's arguments, with ``old`` and ``changed`` for a receiver before the write.
        change: what the database has captured; None before that.
    """
    named = {"signal": receiver.signal, "sender": model, **sent}
    if receiver.batch and receiver.signal is not m2m_changed:
        # A signal that is sent by hand may name no database.
        found: dict[str, Any]
        found = {key: named[key] for key in ("signal", "sender", "using") if key in named}
        found["instances"] = [named["instance"]]
        found["events"] = [] if change is None else [change]
        return found
    return {**_own(receiver, change), **named}


def _of_signal(receiver: Receiver, model: type[Model], using: str) -> dict[str, Any]:
    return {"signal": receiver.signal, "sender": model, "using": using}


def _of_row(receiver: Receiver, row: Change | Uncaptured) -> dict[str, Any]:
    if receiver.signal is pre_delete or receiver.signal is post_delete:
        return {"origin": row.origin}
    if receiver.signal is pre_save:
        return {"raw": False, "update_fields": row.update_fields}
    if receiver.signal is post_save:
        return {"created": row.created, "raw": False, "update_fields": row.update_fields}
    return {"created": row.created}


def _own(receiver: Receiver, change: Change | None) -> dict[str, Any]:
    """bulksafe's own arguments that the receiver names.

    Args:
        change: what the database has captured; None before that.
    """
    return {name: _value(name, change) for name in receiver.extras}


def _value(name: str, change: Change | None) -> object:
    if name == "context":
        return dict(current() if change is None else change.context)
    if change is None:
        return frozenset() if name == "changed" else None
    return getattr(change, name)


def _of_links(changes: Sequence[Change], when: str) -> dict[str, Any]:
    """The arguments for the rows of a through table that one transaction adds to one instance."""
    last = changes[-1]
    source, target = link_fields(last.model)
    pks = {getattr(change.instance, target.attname) for change in changes}
    return {
        "action": f"{when}_add" if last.created else f"{when}_remove",
        "instance": _owner(source, getattr(last.instance, source.attname), last.using),
        "reverse": False,
        "model": target.related_model,
        "pk_set": pks,
        **M2M_CHANGED_ARGUMENTS,
    }


def _owner(source: ForeignKey[Any, Any], value: object, using: str) -> Model:
    """The instance of a through row; one with only a key if it has been deleted in the meantime."""
    model: Any = source.related_model
    name = source.target_field.attname
    found: Model | None = model._base_manager.using(using).filter(**{name: value}).first()
    if found is None:
        found = model.from_db(using, [name], [value])
    return found
