"""A receiver's parameters: bulksafe passes its own arguments only if the receiver names them."""

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
    """The ``EXTRAS`` that are parameters of the function or of its wrapped function.

    A wrapper with ``**kwargs`` passes them on, so the inner function may name them too. Arguments
    bound by a ``functools.partial`` keep their value.
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
    """Whether the function has ``**kwargs``."""
    return any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())


def _taken_by_name(signature: inspect.Signature) -> list[str]:
    return [one.name for one in signature.parameters.values() if one.kind in _BY_NAME]


def _wrapped(function: Callable[..., object]) -> Callable[..., object] | None:
    """The function wrapped, by ``functools.wraps``, in a function or an object's ``__call__``."""
    found: Callable[..., object] | None = getattr(function, "__wrapped__", None)
    if found is None:
        found = getattr(getattr(function, "__call__", None), "__wrapped__", None)  # noqa: B004
    return found
