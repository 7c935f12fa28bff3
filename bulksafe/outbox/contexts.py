"""The contexts of events. Every role that can write a captured table can choose their content."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The maximum size of a context as JSON. A request's ids take some hundred characters.
MOST_CHARACTERS = 64 * 1024
#: The maximum nesting of lists and objects. Python's limit depends on its version and on the depth
#: of the call: one process may read a context that a different process cannot write.
MOST_NESTED = 100


class UnreadableContext(Exception):  # noqa: N818
    """The context of an event cannot be read: only this event fails."""


class Unread(dict[str, Any]):
    """Stands for a context that cannot be read.

    Args:
        reason: why not.
    """

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


def read_context(text: str | None) -> Mapping[str, Any]:
    """The ``bulksafe.context`` of an event.

    Never raises: PostgreSQL accepts JSON with numbers of thousands of digits and lists nested
    thousands deep, and one such context would block all other events of the batch.
    """
    if not text:
        return {}
    if len(text) > MOST_CHARACTERS:
        return Unread(f"it has {len(text):,} characters, and {MOST_CHARACTERS:,} are the limit")
    try:
        found: Mapping[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unread(f"{type(error).__name__}: {error}")
    if len(text) > 2 * MOST_NESTED and is_nested_too_deep(found):
        return Unread(f"it is nested more than {MOST_NESTED} deep")
    return found


def is_nested_too_deep(value: object) -> bool:
    """Whether Python may be able to read it as JSON, but not to write or copy it."""
    level = [value]
    for _ in range(MOST_NESTED + 1):
        level = [inner for outer in level for inner in _inner(outer)]
    return bool(level)


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
