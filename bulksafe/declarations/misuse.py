"""Import-time errors for misuse of ``critical`` that would leave a receiver uncalled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.dispatch import Signal

from bulksafe.compat import own_signature

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def checked(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Raise a TypeError that shows the right form, for a misspelt option and a missing signal."""
    options = list(function.__kwdefaults__ or ())

    @wraps(function)
    def call(*args: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        _refuse_bare(args, named)
        for option in named:
            if option not in options and option != "signal":
                raise TypeError(f"critical() has no option “{option}”. {_meant(option, options)}")
        return function(*args, **named)

    return call


def _meant(option: str, options: list[str]) -> str:
    close = get_close_matches(option, options, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Options are: {', '.join(options)}."


def _refuse_bare(args: tuple[object, ...], options: dict[str, Any]) -> None:
    """Refuse ``@bulksafe.critical`` without parentheses: the function is no signal."""
    first = args[0] if args else None
    if not callable(first) or isinstance(first, Signal) or (isinstance(first, type) and options):
        return
    name = getattr(first, "__qualname__", type(first).__qualname__)
    raise TypeError(
        f"critical({name}) has a function in place of a signal, so {name} would never be called. "
        "Write @bulksafe.critical(post_save, sender=Order) above it."
    )


def refuse_method(function: object) -> None:
    """Raise a TypeError for a method in the body of its class: no call could pass ``self``."""
    function = function.__func__ if isinstance(function, classmethod) else function
    owner, _, name = getattr(function, "__qualname__", "").rpartition(".")
    if not owner or owner.endswith("<locals>") or not inspect.isfunction(function):
        return
    first = _first_parameter(function)
    if first in {"self", "cls"}:
        raise TypeError(
            f"{owner}.{name} is a method, and a signal has no “{first}” for it. Write a function "
            f"outside the class, or a @staticmethod without “{first}”; or declare the method of an "
            f"object: bulksafe.critical(post_save, sender=Order)(that_object.{name})."
        )


def _first_parameter(function: Callable[..., object]) -> str:
    try:
        signature = own_signature(inspect.unwrap(function))
    except ValueError:
        # It wraps itself.
        return ""
    return next(iter(signature.parameters), "") if signature else ""
