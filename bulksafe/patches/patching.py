"""Replaces attributes of classes and modules of Django, psycopg and pgtrigger."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

from django.utils.functional import cached_property

_Result = TypeVar("_Result")

#: The owner of a replaced attribute.
Owner: TypeAlias = type | ModuleType
#: A replaced function, by its result type.
Original: TypeAlias = Callable[..., _Result]

#: The marker attribute of a replacement function.
APPLIED = "_bulksafe_applied"


def wrap(owner: Owner, name: str, replacement: Callable[..., Any]) -> None:
    """Replace a function by one that calls ``replacement(original, *args, **kwargs)``."""
    original = getattr(owner, name)
    if getattr(original, APPLIED, False):
        return

    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> object:
        return replacement(original, *args, **kwargs)

    setattr(patched, APPLIED, True)
    setattr(owner, name, patched)


def extend_cached_property(owner: type, name: str, replacement: Callable[..., Any]) -> None:
    """Compute a cached property by ``replacement(original, self)``."""
    original = vars(owner)[name].func
    if getattr(original, APPLIED, False):
        return

    @functools.wraps(original)
    def patched(self: object) -> object:
        return replacement(original, self)

    setattr(patched, APPLIED, True)
    extended = cached_property(patched)
    extended.__set_name__(owner, name)
    setattr(owner, name, extended)


def add_property(owner: Owner, name: str, replacement: Callable[..., Any]) -> None:
    """Add a property, unless Django has an attribute of this name."""
    if name not in vars(owner):
        setattr(owner, name, property(replacement))


def substitute(owner: Owner, name: str, replacement: Callable[..., Any]) -> None:
    """Replace a class by the result of ``replacement(original)``."""
    setattr(owner, name, replacement(getattr(owner, name)))


@dataclass(frozen=True)
class Patch:
    """A patch of Django or pgtrigger.

    Attributes:
        owner: the class or module.
        name: its attribute.
        replacement: the replacement, in the form that ``install`` expects.
        why: the reason.
        install: one of the functions above.
    """

    owner: Owner
    name: str
    replacement: Callable[..., Any]
    why: str
    install: Callable[[Any, str, Callable[..., Any]], None] = wrap

    def apply(self) -> None:
        """Apply it; a second call changes nothing."""
        self.install(self.owner, self.name, self.replacement)
