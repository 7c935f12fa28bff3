"""Receivers that a test declares for itself; their captures are made in its transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bulksafe
from bulksafe import testing
from bulksafe.declarations import Capture, receivers
from tests.apps.columns.trying import install

_ABSENT = object()


class Calls(list[dict[str, Any]]):
    """A receiver that names all arguments and records them."""

    def __call__(
        self,
        *,
        old: Any = _ABSENT,
        changed: Any = _ABSENT,
        event_id: Any = _ABSENT,
        context: Any = _ABSENT,
        **kwargs: Any,
    ) -> None:
        own = {"old": old, "changed": changed, "event_id": event_id, "context": context}
        self.append(kwargs | {name: one for name, one in own.items() if one is not _ABSENT})

    def delivered(self) -> list[dict[str, Any]]:
        """What it is called with for all that was written since it was asked last."""
        self.clear()
        testing.deliver()
        return list(self)


@contextmanager
def only_these() -> Iterator[None]:
    """Only the receivers of the block, which the registry of triggers does not see."""
    listeners = list(receivers.listeners)
    receivers.listeners.clear()
    try:
        with receivers.isolated():
            yield
    finally:
        receivers.listeners[:] = listeners


def declare(signal: Any, sender: Any, name: str = "calls", **options: Any) -> Calls:
    """A receiver that records its calls; the caller installs the captures."""
    calls = Calls()
    options = {"run": "after_commit", "dispatch_uid": name, **options}
    bulksafe.critical(signal, sender=sender, **options)(calls)
    return calls


def capture(*models: Any) -> None:
    """Make the captures of the models' tables for the receivers that are declared by now."""
    for model in models:
        install(model, Capture())


def listen(signal: Any, model: Any, **options: Any) -> Calls:
    """A receiver of one model, and its capture."""
    calls = declare(signal, model, **options)
    capture(model)
    return calls
