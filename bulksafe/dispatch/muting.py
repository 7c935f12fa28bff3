"""Mutes receivers for the duration of a block."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from bulksafe.declarations import receivers
from bulksafe.declarations.order import meant_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulksafe.declarations import Receiver

_muted: ContextVar[frozenset[str]] = ContextVar("bulksafe.muted_receivers", default=frozenset())


def is_muted(receiver: Receiver) -> bool:
    return receiver.name in _muted.get()


@contextmanager
def muted(*references: Any) -> Iterator[None]:
    """Do not call the receivers, given as functions or names, for events.

    Raises:
        LookupError: there is no such receiver.
    """
    names: set[str] = set()
    for reference in references:
        found = meant_by(reference, receivers.receivers)
        if not found:
            known = ", ".join(sorted(r.name for r in receivers.receivers)) or "none"
            raise LookupError(
                f"There is no critical receiver {reference!r}. Declared are: {known}."
            )
        names |= {receiver.name for receiver in found}
    token = _muted.set(_muted.get() | names)
    try:
        yield
    finally:
        _muted.reset(token)
