"""How a method of Django's or pgtrigger's is replaced."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: The attribute of what replaces a method.
APPLIED = "_bulksafe_applied"


def patch(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Put ``replacement(original, self, …)`` in the place of ``owner.name``."""
    original = getattr(owner, name)
    if getattr(original, APPLIED, False):
        return

    @functools.wraps(original)
    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return replacement(original, self, *args, **kwargs)

    setattr(patched, APPLIED, True)
    setattr(owner, name, patched)
