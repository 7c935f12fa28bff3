"""Finds, retries and discards parked events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulksafe.outbox import parking
from bulksafe.outbox.contexts import is_nested_too_deep

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from bulksafe.outbox.store import Store


@dataclass(frozen=True)
class ParkedEvent:
    """An event that failed, or waits behind a failed one.

    Attributes:
        state: ``"waiting"`` or ``"dead"``.
        attempts: the number of failed attempts; 0 if it only waits.
        source: the table of its row.
        due: the time of the next attempt; None if it waits behind a different event.
        old, new: the row's images.
    """

    id: int
    queue: str
    atomic: bool
    receiver: str
    state: str
    attempts: int
    source: str
    key: str
    operation: str
    at: datetime
    due: datetime | None
    error: str | None
    traceback: str | None
    old: object
    new: object
    context: object
    seq: int


@dataclass(frozen=True)
class Selection:
    """A filter for parked events: all given criteria must match."""

    ids: Sequence[int] = ()
    receiver: str | None = None
    queue: str | None = None
    atomic: bool | None = None
    state: str | None = None
    older_than: float | None = None

    @property
    def sql(self) -> str:
        tests = {
            "id = ANY (%(ids)s)": self.ids or None,
            "receiver = %(receiver)s": self.receiver,
            "queue = %(queue)s": self.queue,
            "atomic = %(atomic)s": self.atomic,
            "state = %(state)s": self.state,
            "parked_at < now() - %(older_than)s * interval '1 second'": self.older_than,
        }
        return " AND ".join([t for t, given in tests.items() if given is not None] or ["true"])

    @property
    def parameters(self) -> dict[str, Any]:
        return {**vars(self), "ids": list(self.ids)}


def find(store: Store, selection: Selection, limit: int) -> list[ParkedEvent]:
    parameters = {**selection.parameters, "limit": limit}
    rows = store.rows("parked_events", parameters, selection=selection.sql)
    return [_parked(row) for row in rows]


def _parked(row: tuple[Any, ...]) -> ParkedEvent:
    texts = slice(-4, -1)
    read = [text and _read(text) for text in row[texts]]
    return ParkedEvent(*(*row[: texts.start], *read, row[-1]))


def _read(text: str) -> object:
    """Parse JSON; return the text if Python cannot parse it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if is_nested_too_deep(found) else found


def count(store: Store, selection: Selection) -> int:
    """The number of matching events."""
    rows = store.rows("parked_count", selection.parameters, selection=selection.sql)
    found: int = rows[0][0]
    return found


@dataclass(frozen=True)
class Target:
    """The receiver that parked events are moved to, and its lane; None leaves them there."""

    receiver: str | None = None
    queue: str | None = None
    atomic: bool | None = None


def retry(store: Store, selection: Selection, target: Target = Target()) -> tuple[int, int]:
    """Retry them with all their attempts.

    Returns:
        the number of those that are due now, and of those that wait for an earlier event of the
        same row.
    """
    moved = {f"to_{name}": value for name, value in vars(target).items()}
    parameters = {**selection.parameters, **moved}
    ids = [number for (number,) in store.rows("retry", parameters, selection=selection.sql)]
    parking.wake_all_free(store, {queue for queue, _ in store.lanes()})
    ((behind,),) = store.rows("behind", {"ids": ids})
    return len(ids) - behind, behind


def discard(store: Store, selection: Selection) -> int:
    """Delete them permanently; returns their number."""
    return len(store.rows("discard", selection.parameters, selection=selection.sql))
