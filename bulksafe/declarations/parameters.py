"""What a receiver asks for: bulksafe's own arguments are passed to one that names them."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING

from bulksafe.compat import own_signature

if TYPE_CHECKING:
    from collections.abc import Callable

#: What bulksafe passes besides Django's arguments.
EXTRAS = ("old", "changed", "event_id", "context")

_BY_NAME = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def named_extras(function: Callable[..., object]) -> frozenset[str]:
    """Those of ``EXTRAS`` that are parameters of the function, or of what it wraps.

    A wrapper that takes ``**kwargs`` passes them on, so the function inside may name them too.
    What a ``functools.partial`` has bound keeps that value.
    """
    found: set[str] = set()
    bound: set[str] = set()
    seen: set[int] = set()
    inner: Callable[..., object] | None = function
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        signature = own_signature(inner)
        if isinstance(inner, functools.partial):
            bound |= set(inner.keywords)
            inner = inner.func
        if signature is not None:
            found |= {name for name in _taken_by_name(signature) if name not in bound}
            if not takes_more(signature):
                break
        inner = _wrapped(inner)
    return frozenset(found.intersection(EXTRAS))


def takes_more(signature: inspect.Signature) -> bool:
    """Whether there is a ``**kwargs``."""
    return any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())


def _taken_by_name(signature: inspect.Signature) -> list[str]:
    return [one.name for one in signature.parameters.values() if one.kind in _BY_NAME]


def _wrapped(function: Callable[..., object]) -> Callable[..., object] | None:
    """What ``functools.wraps`` says that a function, or the ``__call__`` of an object, wraps."""
    found: Callable[..., object] | None = getattr(function, "__wrapped__", None)
    if found is None:
        found = getattr(getattr(function, "__call__", None), "__wrapped__", None)  # noqa: B004
    return found
