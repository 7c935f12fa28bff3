"""Receivers in the writer's transaction that a test declares for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bulksafe
from bulksafe.declarations import Capture, receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.patches.signals import connect_critical, disconnect_critical
from tests.apps.columns.trying import install
from tests.integration import reception


@contextmanager
def only_these() -> Iterator[None]:
    """No receivers but those of the block."""
    with reception.only_these():
        try:
            yield
        finally:
            for receiver in receivers.receivers:
                if receiver.is_inline:
                    disconnect_critical(receiver)


def critical(signal: Any, sender: Any, function: Any = None, **options: Any) -> Any:
    """Declare a receiver, connect it and make its captures.

    Without a function: a list that keeps the calls.
    """
    calls = reception.Calls()
    count = len(receivers.receivers)
    options = {"dispatch_uid": f"receiver {count}", **options}
    bulksafe.critical(signal, sender=sender, **options)(function or calls)
    declared = receivers.receivers[count:]
    for receiver in declared:
        connect_critical(receiver)
    # A receiver of two signals is two, with the same captures.
    capture(*dict.fromkeys(model for receiver in declared for model in receiver.models()))
    return calls if function is None else function


def capture(*models: Any) -> None:
    for model in models:
        for table in lineage(model):
            install(table, Capture())
