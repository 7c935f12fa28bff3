"""Checks the function of a critical receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import Parameter

from django.utils.inspect import func_accepts_kwargs

from bulksafe.compat import M2M_CHANGED_ARGUMENTS, own_signature
from bulksafe.declarations import Receiver
from bulksafe.planning.problems import Problem, shown
from bulksafe.planning.receiver_source import unnamed_problems

#: Django's arguments of receivers besides ``signal``, ``sender`` and ``using``.
_PASSED = {
    "pre_save": ("instance", "raw", "update_fields"),
    "post_save": ("instance", "raw", "update_fields", "created"),
    "pre_delete": ("instance", "origin"),
    "post_delete": ("instance", "origin"),
    "m2m_changed": ("instance", "action", "reverse", "model", "pk_set", *M2M_CHANGED_ARGUMENTS),
}


def function_problems(receiver: Receiver) -> Iterator[Problem]:
    """Problems of the function that its signature and source show."""
    function: object = receiver.function
    if not callable(function):
        yield Problem("E106", f"{shown(function)} cannot be called.", "Decorate a function.")
    elif not _takes_kwargs(function):
        yield Problem(
            "E106",
            "The receiver takes no **kwargs, and later versions may pass more arguments.",
            "Add **kwargs to its parameters.",
        )
    else:
        yield from _parameter_problems(receiver)
        yield from unnamed_problems(receiver)


def _takes_kwargs(function: Callable[..., object]) -> bool:
    try:
        return bool(func_accepts_kwargs(function))
    except ValueError:
        # A builtin may have no signature.
        return True


def _parameter_problems(receiver: Receiver) -> Iterator[Problem]:
    """Parameters without an argument, each of which would be a TypeError."""
    signature = own_signature(receiver.function)
    named = ("instances", "events") if receiver.batch else _PASSED.get(receiver.signal_name)
    if signature is None or named is None:
        return
    passed = {"signal", "sender", "using", *named, *receiver.known_extras}
    for one in signature.parameters.values():
        if one.kind is one.POSITIONAL_ONLY and one.default is one.empty:
            yield Problem(
                "E106",
                f"The receiver takes “{one.name}” by position only, but Django passes it by name.",
                "Remove the “/” from its parameters.",
            )
        elif _is_required(one) and one.name not in passed:
            call = "a call with batch=True" if receiver.batch else receiver.signal_name
            yield Problem(
                "E106",
                f"The receiver requires “{one.name}”, which {call} does not pass.",
                "Leave the parameter out, or give it a default. A batch has it in each of “events”."
                if receiver.batch
                else "Leave the parameter out, or give it a default.",
            )


def _is_required(parameter: Parameter) -> bool:
    by_name = parameter.kind in {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
    return by_name and parameter.default is Parameter.empty
