"""``bulksafe.context``: who and why, carried with every event to its receivers."""

from __future__ import annotations

import functools
import inspect
import json
import re
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_Function = TypeVar("_Function", bound="Callable[..., Any]")

_current: ContextVar[Mapping[str, Any]] = ContextVar(
    "bulksafe.context", default=MappingProxyType({})
)

#: The receivers that are being run, each because of a write of the one before it.
_running: ContextVar[tuple[str, ...]] = ContextVar("bulksafe.running", default=())

#: Where an event's context names the receivers that its write came from.
WRITTEN_BY = "bulksafe.written_by"

_SETTING = "bulksafe.context"
_SET = "SELECT set_config(%s, %s, true)"

#: How ``json.dumps`` writes a NUL.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

#: The statements that can change rows. A SELECT that calls a function which writes is not among
#: them: it would cost every query a round trip.
WRITES = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:INSERT|UPDATE|DELETE|MERGE|COPY|WITH|CALL|DO)\b",
    re.IGNORECASE | re.DOTALL,
)
_ROLLS_BACK = re.compile(r"\s*ROLLBACK\b", re.IGNORECASE)


class context(ContextDecorator):  # noqa: N801  (used as a function, like contextlib's)
    """Let the writes of a block tell receivers who made them, and why.

    ``with bulksafe.context(user=request.user.pk, request_id="…"):``. Receivers get it as the dict
    ``context``. Blocks nest and add to each other. It is local to the thread or the task, and in
    the database to the transaction: no pooler carries it to somebody else.

    Args:
        **values: what JSON can hold, and dates, decimals and UUIDs, which become text.

    Raises:
        TypeError: a value cannot become JSON.
        ValueError: a number is not finite, or a text has what PostgreSQL's JSON cannot hold.
        TypeError: the decorated function is a generator, and would run without the context. One
            that is ``async`` is fine.
    """

    def __init__(self, **values: Any) -> None:
        if values:
            _refuse_what_jsonb_refuses(values)
        self.values = values
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __call__(self, func: _Function) -> _Function:
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(
                f"bulksafe.context() cannot decorate {func.__qualname__}(): its body runs after "
                "the call has returned. Use “with bulksafe.context(…):” around what writes."
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
        values = {**_current.get(), **self.values}
        self._tokens.append(_current.set(values))
        return values

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _current.reset(self._tokens.pop())


class reacting:  # noqa: N801  (used as a function)
    """Run a receiver with the context of the write that it is called for.

    Written for speed: a block for each event, and the values have been JSON already.

    Args:
        values: the context.
        names: what the events of the block's own writes say that they come from: receivers, each
            called because of the one before it.
    """

    __slots__ = ("_current", "_running", "names", "values")

    def __init__(self, values: Mapping[str, Any], names: tuple[str, ...]) -> None:
        self.values = values
        self.names = names

    def __enter__(self) -> None:
        before = _current.get()
        # Mostly there is none, and this is done for every event.
        values = {**before, **self.values} if before or self.values else before
        self._current = _current.set(values)
        self._running = _running.set(self.names)

    def __exit__(self, *error: object) -> None:
        _running.reset(self._running)
        _current.reset(self._current)


def _refuse_what_jsonb_refuses(values: Mapping[str, Any]) -> None:
    """Here, and not at the next write."""
    text = json.dumps(values, cls=DjangoJSONEncoder, allow_nan=False, ensure_ascii=False)
    text.encode()
    if _NUL.search(text):
        raise ValueError("PostgreSQL's JSON holds no NUL character.")


def running() -> tuple[str, ...]:
    """The receivers that are being run here, each because of a write of the one before it."""
    return _running.get()


def current() -> Mapping[str, Any]:
    """The context that is in force here."""
    return _current.get()


class Carrier:
    """An execute wrapper that tells the database the context before a write.

    It is set once for a transaction, again where a savepoint took it back or where it changed.
    A write outside a transaction gets one, which is what it is to the database anyway.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        #: What the open transaction has been told.
        self.told = ""

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        values, running = _current.get(), _running.get()
        if not values and not running and not self.told:
            return execute(sql, params, many, context)
        text = sql if isinstance(sql, str) else ""
        if _ROLLS_BACK.match(text):
            self.told = ""
        if text and not WRITES.match(text):
            return execute(sql, params, many, context)
        if running:
            values = {**values, WRITTEN_BY: running}
        wanted = json.dumps(values, cls=DjangoJSONEncoder) if values else ""
        if self.connection.in_atomic_block or not self.connection.get_autocommit():
            self._tell(wanted)
            return execute(sql, params, many, context)
        if not wanted:
            self.told = ""
            return execute(sql, params, many, context)
        with transaction.atomic(using=self.connection.alias):
            self._tell(wanted)
            result = execute(sql, params, many, context)
        self.told = ""
        return result

    def _tell(self, wanted: str) -> None:
        status = self.connection.connection.info.transaction_status
        if status == TransactionStatus.IDLE:
            self.told = ""
        if wanted != self.told and status != TransactionStatus.INERROR:
            # Not through Django's cursor, whose wrappers would be called again.
            self.connection.connection.execute(_SET, [_SETTING, wanted])
            self.told = wanted


def carry(sender: object, connection: Any, **kwargs: Any) -> None:
    """Receiver of ``connection_created``: let the connection carry contexts."""
    wrappers = connection.execute_wrappers
    if connection.vendor == "postgresql" and not any(isinstance(w, Carrier) for w in wrappers):
        wrappers.insert(0, Carrier(connection))
