"""Calling receivers with the arguments of Django's signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from bulksafe.call_stack import Calls
from bulksafe.compat import M2M_CHANGED_ARGUMENTS
from bulksafe.contexts import being_called
from bulksafe.declarations.through import link_fields
from bulksafe.dispatch.calling import call

if TYPE_CHECKING:
    from django.db.models import ForeignKey

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.changes import Change


@dataclass(frozen=True)
class Call:
    """One call of a receiver.

    Attributes:
        receiver: who is called.
        changes: what for: one change, or several for ``batch=True`` and ``m2m_changed``.
        error: why it cannot be called, if so.
    """

    receiver: Receiver
    changes: Sequence[Change]
    error: Exception | None = None

    def __call__(self) -> None:
        """Call the receiver; whatever it raises comes out.

        Raises:
            Unreadable: the event's images do not fit the table any more.
            EndlessWrites: receivers go on reacting to each other.
        """
        if self.error is not None:
            raise self.error
        last = self.changes[-1]
        outer = Calls.of_names(last.written_by)
        with being_called(outer.plus(self.receiver.name, last.row), last.context):
            call(self.receiver.function, arguments(self.receiver, self.changes))

    def single_calls(self) -> list[Call]:
        """The same call, split into one for each change."""
        return [Call(self.receiver, [change]) for change in self.changes]


def arguments(receiver: Receiver, changes: Sequence[Change]) -> dict[str, Any]:
    """The keyword arguments of a call: Django's, and those of bulksafe that the receiver names."""
    last = changes[-1]
    common = {"signal": receiver.signal, "sender": last.model, "using": last.using}
    extra = {name: _EXTRA[name](last) for name in receiver.extras}
    if receiver.signal is m2m_changed:
        return {**common, **_of_m2m_changed(changes), **extra}
    if receiver.batch:
        instances = [change.instance for change in changes]
        return {**common, "instances": instances, "events": list(changes)}
    return {**common, receiver.argument: last.instance, **_of_row(receiver, last), **extra}


#: How each of bulksafe's own arguments is made of a change.
_EXTRA: dict[str, Callable[[Change], Any]] = {
    "old": attrgetter("old"),
    "changed": attrgetter("changed"),
    "event_id": attrgetter("event_id"),
    "context": lambda change: dict(change.context),
}


def _of_row(receiver: Receiver, change: Change) -> dict[str, Any]:
    if receiver.signal in {pre_delete, post_delete}:
        return {"origin": change.origin}
    if receiver.signal is pre_save:
        return {"raw": False, "update_fields": change.update_fields}
    if receiver.signal is post_save:
        update_fields = change.update_fields
        return {"created": change.created, "raw": False, "update_fields": update_fields}
    return {"created": change.created}


# m2m_changed: the rows of a through table.


def m2m_group(change: Change) -> tuple[Any, ...]:
    """Rows of one group make one call: those that one transaction adds to one instance."""
    source, _ = link_fields(change.model)
    return (
        change.event.xid,
        change.event.operation,
        change.event.bucket if change.event.parked else 0,
        change.stored(source.attname),
    )


def _of_m2m_changed(changes: Sequence[Change]) -> dict[str, Any]:
    last = changes[-1]
    source, target = link_fields(last.model)
    pks = {getattr(change.instance, target.attname) for change in changes}
    return {
        "action": "post_add" if last.created else "post_remove",
        "instance": _owner(source, getattr(last.instance, source.attname), last.using),
        "reverse": False,
        "model": target.related_model,
        "pk_set": pks,
        **M2M_CHANGED_ARGUMENTS,
    }


def _owner(source: ForeignKey[Any, Any], value: Any, using: str) -> Any:
    """The instance that a through row belongs to; a bare one if it has gone in the meantime."""
    model: Any = source.related_model
    name = source.target_field.attname
    found = model._base_manager.using(using).filter(**{name: value}).first()
    if found is not None:
        return found
    return model.from_db(using, [name], [value])
