"""The blocks that set the context: the user's own, and the call of a receiver."""

from __future__ import annotations

import functools
import inspect
from contextlib import ContextDecorator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bulksafe import call_stack
from bulksafe.contexts.identity import WRITTEN_BY, in_force, refuse_what_jsonb_refuses
from bulksafe.contexts.setting import correct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import TracebackType

    from bulksafe.call_stack import Calls

_Function = TypeVar("_Function", bound="Callable[..., Any]")

#: Called at the end of a block, still inside it; ``bulksafe.writer.attaching`` adds to it.
leaving: list[Callable[[], None]] = []


class context(ContextDecorator):  # noqa: N801  (used as a function, like contextlib's)
    """Pass metadata about the writer from the writes of a block to their receivers.

    ``with bulksafe.context(user=request.user.pk, request_id="…"):``. Receivers get it as the dict
    ``context``. Blocks nest and add to each other. It is local to the thread or the task, and in
    the database to the transaction: no pooler carries it to other clients.

    Args:
        **values: JSON values, and dates, decimals and UUIDs, which become text.

    Raises:
        TypeError: a value cannot become JSON.
        ValueError: a number is not finite, a text contains a character that PostgreSQL's JSON
            cannot hold, or a key is ``bulksafe.written_by``, which is bulksafe's own.
        TypeError: the decorated function is a generator, and would run without the context. One
            that is ``async`` is fine.
    """

    def __init__(self, **values: Any) -> None:
        if values:
            refuse_what_jsonb_refuses(values)
        if WRITTEN_BY in values:
            raise ValueError(
                f"The key “{WRITTEN_BY}” is reserved: bulksafe sets it to the receivers whose "
                "calls wrote the event. Choose a different key."
            )
        self.values = values
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __call__(self, func: _Function) -> _Function:
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(
                f"bulksafe.context() cannot decorate {func.__qualname__}(): its body runs after "
                "the call has returned. Use “with bulksafe.context(…):” around the writes."
            )
        if not inspect.iscoroutinefunction(func):
            return super().__call__(func)

        @functools.wraps(func)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            with self._recreate_cm():
                return await func(*args, **kwargs)

        return cast("_Function", inner)

    def _recreate_cm(self) -> context:
        return type(self)(**self.values)

    def __enter__(self) -> Mapping[str, Any]:
        values = {**in_force.get(), **self.values}
        self._tokens.append(in_force.set(values))
        return values

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for settle in leaving:
                    settle()
        finally:
            in_force.reset(self._tokens.pop())
        correct()


class being_called:  # noqa: N801  (used as a function)
    """Call a receiver: push the call, and set the context of the write that triggered it.

    The writes of the block count as the receiver's. For speed it is a class without validation:
    every call uses it, and the values come from JSON.

    Args:
        calls: the calls in progress, with this one.
        context: of the write.
    """

    __slots__ = ("_calls", "_context", "_outer_calls", "_outer_context")

    def __init__(self, calls: Calls, context: Mapping[str, Any]) -> None:
        self._calls = self._outer_calls = calls
        self._context = self._outer_context = context

    def __enter__(self) -> None:
        self._outer_context = outer = in_force.get()
        # Most events have none.
        if self._context:
            in_force.set({**outer, **self._context})
        self._outer_calls = call_stack.replace(self._calls)

    def __exit__(self, *error: object) -> None:
        call_stack.replace(self._outer_calls)
        in_force.set(self._outer_context)
