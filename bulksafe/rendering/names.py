"""Names of the triggers and functions that invariants own."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: PostgreSQL's limit for an identifier, in bytes.
IDENTIFIER_BYTES = 63
#: pgtrigger's limit for a trigger's name, in characters.
MAX_NAME_LENGTH = 47

VALID_NAME = re.compile(r"\A[A-Za-z0-9_-]+\Z")


def digest(text: str, length: int = 5) -> str:
    """The first ``length`` hex digits of the SHA-1 of ``text``: the same in every process."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:length]


def set_id(ids: Iterable[str]) -> str:
    """An id for a set of ids; its ``#`` distinguishes it from theirs."""
    return f"#{digest(' '.join(sorted(ids)), 10)}"


def slug(name: str) -> str:
    """``name`` as a lower-case ASCII identifier, for use inside a longer one."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "x"


@cache
def identifier(prefix: str, name: str, uri: str, suffix: str = "") -> str:
    """An identifier of at most 63 bytes that needs no quotes and is unique for ``uri``.

    ``pgtrigger_discount_within_amount_1a2b3`` for the prefix ``pgtrigger_``; a long name in the
    middle is truncated, and the digest keeps truncated names distinct.
    """
    tail = f"_{digest(uri)}{suffix}"
    room = IDENTIFIER_BYTES - len(prefix) - len(tail)
    return f"{prefix}{slug(name)[:room]}{tail}"
