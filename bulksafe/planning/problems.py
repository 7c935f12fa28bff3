"""Problems of declarations: a fact and its fix, with the id that the docs explain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from django.db.models import QuerySet

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Problem:
    """One finding about a declaration.

    Attributes:
        id: ``"E020"``, or ``"W003"`` and ``"I001"`` for warnings and hints.
        fact: the problem, as a sentence.
        fix: what to write instead.
    """

    id: str
    fact: str
    fix: str


class Refused(Exception):  # noqa: N818
    """Planning cannot continue: the declaration has ``problem``."""

    def __init__(self, code: str, fact: str, fix: str) -> None:
        super().__init__(fact)
        self.problem = Problem(code, fact, fix)


def did_you_mean(word: object, known: Iterable[object], otherwise: str) -> str:
    """A fix for a misspelt ``word``."""
    close = get_close_matches(str(word), [str(name) for name in known], n=1)
    return f"Did you mean {close[0]!r}?" if close else otherwise


def shown(value: object) -> str:
    """``value`` for a message. The repr of a queryset would run a query."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, QuerySet):
        return "a queryset"
    text = _ADDRESS.sub("", repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_SHOWN = 80
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
