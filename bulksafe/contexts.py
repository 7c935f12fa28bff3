"""``bulksafe.context``: who and why, carried with every event to its receivers."""

from __future__ import annotations

import functools
import inspect
import json
import re
import threading
from contextlib import ContextDecorator, contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet, ref

from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, transaction
from psycopg.pq import PipelineStatus, TransactionStatus

from bulksafe import call_stack
from bulksafe.call_stack import running
from bulksafe.statements import fits_in_transaction, may_undo_settings, may_write, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from bulksafe.call_stack import Calls

_Function = TypeVar("_Function", bound="Callable[..., Any]")

_current: ContextVar[Mapping[str, Any]] = ContextVar(
    "bulksafe.context", default=MappingProxyType({})
)


class _Here(threading.local):
    """What belongs to a thread, as its connections do, and not to a ``contextvars.Context``.

    Attributes:
        carriers: those of connections whose open transaction has been given an identity.
    """

    def __init__(self) -> None:
        self.carriers: WeakSet[Carrier] = WeakSet()


_here = _Here()

#: Where an event's context names the receivers that its write came from.
WRITTEN_BY = "bulksafe.written_by"

#: Called at the end of a block, still inside it; ``bulksafe.writer.watch`` adds to it.
leaving: list[Callable[[], None]] = []

#: Called with Django's connection before a statement that execute wrappers do not see.
past_django: list[Callable[[Any, Any], None]] = []

_SETTING = "bulksafe.context"
_SET = "SELECT set_config(%s, %s, true)"

#: How ``json.dumps`` writes a NUL.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

#: A statement that sets the setting by hand.
_SETS = re.compile(r"\bSET\b|\bset_config\b", re.IGNORECASE)

#: The SQLSTATE of a procedure, or a DO, that commits by itself.
_COMMITS_ITSELF = "2D000"


class context(ContextDecorator):  # noqa: N801  (used as a function, like contextlib's)
    """Let the writes of a block tell receivers who made them, and why.

    ``with bulksafe.context(user=request.user.pk, request_id="…"):``. Receivers get it as the dict
    ``context``. Blocks nest and add to each other. It is local to the thread or the task, and in
    the database to the transaction: no pooler carries it to somebody else.

    Args:
        **values: what JSON can hold, and dates, decimals and UUIDs, which become text.

    Raises:
        TypeError: a value cannot become JSON.
        ValueError: a number is not finite, a text has what PostgreSQL's JSON cannot hold, or a key
            is ``bulksafe.written_by``, which is bulksafe's own.
        TypeError: the decorated function is a generator, and would run without the context. One
            that is ``async`` is fine.
    """

    def __init__(self, **values: Any) -> None:
        if values:
            _refuse_what_jsonb_refuses(values)
        if WRITTEN_BY in values:
            raise ValueError(
                f"The key “{WRITTEN_BY}” is reserved: bulksafe sets it to the receivers that an "
                "event's write came from. Choose another key."
            )
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
        try:
            if error is None:
                for settle in leaving:
                    settle()
        finally:
            _current.reset(self._tokens.pop())
        correct()


class being_called:  # noqa: N801  (used as a function)
    """Call a receiver: push the call, and use the context of the write that it is made for.

    What the block writes comes from this receiver. Written for speed: a block for each call, and
    the values have been JSON already.

    Args:
        calls: the calls in progress, with this one.
        context: of the write.
    """

    __slots__ = ("_calls", "_context", "_outer_calls", "_outer_context")

    def __init__(self, calls: Calls, context: Mapping[str, Any]) -> None:
        self._calls = self._outer_calls = calls
        self._context = self._outer_context = context

    def __enter__(self) -> None:
        self._outer_context = outer = _current.get()
        # Mostly there is none, and this is done for every event.
        if self._context:
            _current.set({**outer, **self._context})
        self._outer_calls = call_stack.replace(self._calls)

    def __exit__(self, *error: object) -> None:
        call_stack.replace(self._outer_calls)
        _current.set(self._outer_context)


def _refuse_what_jsonb_refuses(values: Mapping[str, Any]) -> None:
    """Here, and not at the next write."""
    text = json.dumps(values, cls=DjangoJSONEncoder, allow_nan=False, ensure_ascii=False)
    text.encode()
    if _NUL.search(text):
        raise ValueError("PostgreSQL's JSON holds no NUL character.")


def current() -> dict[str, Any]:
    """A copy of the active context: a receiver may store it as JSON, or change it."""
    return dict(_current.get())


def correct() -> None:
    """Set the present identity where a connection of this thread still has that of another block.

    For statements that execute wrappers do not see. Sends nothing where none has been set.
    """
    for carrier in tuple(_here.carriers):
        carrier.correct()


class Carrier:
    """Execute wrapper that sets the identity of the writer in the database before a write.

    The identity is the context, with the names of the receivers being called. It is a setting local
    to the transaction: set before the first write, set again where it changes, cleared when its
    block ends before the transaction does. A write in autocommit gets a transaction.

    The end of a receiver's call leaves it in place, since the next call is mostly of the same
    receiver: the next statement that may write corrects it, be it past Django's cursors.

    Attributes:
        connection: Django's.
        is_set: whether the open transaction has been given an identity.
        written_by: the receivers that were being called then.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._known: ref[Any] | None = None
        self._is_seen = False
        self.is_set = False
        self.written_by: tuple[str, ...] = ()
        #: The value of the setting; None if unknown.
        self._value: str | None = ""
        self.begin()

    def begin(self) -> None:
        """Follow a new connection of the driver's."""
        driver = self.connection.connection
        # A strong reference would keep closed connections alive.
        self._known = None if driver is None else ref(driver)
        self._is_seen = False
        self.end()
        if driver is not None:
            _carriers[driver] = ref(self)

    @property
    def _driver(self) -> Any:
        return None if self._known is None else self._known()

    def end(self) -> None:
        """The transaction has ended, and the setting with it."""
        self.is_set = False
        self.written_by = ()
        self._value = ""
        _here.carriers.discard(self)

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        if not self._has_work():
            return execute(sql, params, many, context)
        text = sql if type(sql) is str else text_of(sql, self.connection)
        run = functools.partial(execute, sql, params, many, context)
        needs_transaction = self.prepare(text)
        with self._seen():
            result = self._run_alone(run) if needs_transaction else run()
        self._follow(text, params)
        return result

    def notice(self, statement: object) -> None:
        """A cursor of the driver's is about to send a statement: not in another call's name."""
        if self._is_seen:
            return
        if self.is_set and self.written_by != running():
            self.correct()
        for look in past_django:
            look(self.connection, statement)

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """Around a statement that has what it needs: a plain read needs no identity."""
        before, self._is_seen = self._is_seen, True
        try:
            yield
        finally:
            self._is_seen = before

    def prepare(self, text: str) -> bool:
        """Set the identity for a statement that may write, if a transaction is open.

        Returns:
            whether the statement needs a transaction of its own to have one.
        """
        if not self._has_work():
            return False
        self._notice_end()
        if not may_write(text):
            return False
        if self._is_in_transaction:
            self._set()
            return False
        return bool(self._wanted()) and fits_in_transaction(text)

    @contextmanager
    def carrying(self, text: str) -> Iterator[None]:
        """Around a statement that execute wrappers do not see."""
        if not self.prepare(text):
            yield
            return
        with transaction.atomic(using=self.connection.alias):
            self._set()
            yield

    def correct(self) -> None:
        """Set the present identity if the open transaction has another one."""
        if self.is_set and not self._notice_end() and self._is_ready:
            self._set()

    def _run_alone(self, run: Callable[[], Any]) -> Any:
        """Run a statement in a transaction of its own."""
        try:
            with transaction.atomic(using=self.connection.alias):
                self._set()
                return run()
        except DatabaseError as error:
            if getattr(error.__cause__, "sqlstate", None) != _COMMITS_ITSELF:
                raise
        # A procedure that commits fails inside a transaction: it goes without an identity.
        return run()

    def _has_work(self) -> bool:
        return bool(self.is_set or running() or _current.get())

    def _wanted(self) -> str:
        values, names = _current.get(), running()
        if names:
            values = {**values, WRITTEN_BY: names}
        return json.dumps(values, cls=DjangoJSONEncoder) if values else ""

    @property
    def _status(self) -> TransactionStatus:
        """What the driver knows of the transaction."""
        driver = self._driver
        if driver is None or self.connection.connection is None:
            return TransactionStatus.UNKNOWN
        return TransactionStatus(driver.pgconn.transaction_status)

    @property
    def _is_in_transaction(self) -> bool:
        return (
            self.connection.in_atomic_block
            or not self.connection.get_autocommit()
            # Begun by hand.
            or self._status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}
        )

    @property
    def _is_ready(self) -> bool:
        """Whether a statement can be sent: not after an error, nor during a COPY."""
        if self._status == TransactionStatus.ACTIVE:
            return bool(self._driver.pgconn.pipeline_status != PipelineStatus.OFF)
        return self._status == TransactionStatus.INTRANS

    def _notice_end(self) -> bool:
        """Whether the transaction has ended that was given an identity."""
        has_ended = self._status in {TransactionStatus.IDLE, TransactionStatus.UNKNOWN}
        if has_ended and self.is_set:
            self.end()
        return has_ended

    def _set(self) -> None:
        """Set the present identity in the open transaction, or the one that begins."""
        wanted = self._wanted()
        if wanted == self._value or self._status == TransactionStatus.INERROR:
            return
        with self.connection.wrap_database_errors, self._seen():
            # Not through Django's cursor, whose wrappers would be called again.
            self._driver.execute(_SET, [_SETTING, wanted])
        self._value, self.written_by, self.is_set = wanted, running(), True
        _here.carriers.add(self)

    def _follow(self, text: str, params: Any) -> None:
        """Notice what a statement has done to the setting."""
        if not self.is_set or self._notice_end():
            return
        if _sets_by_hand(text, params):
            # Inside a block, the next write sets the block's. Outside, it is the user's to set.
            self._value = None if self._wanted() else ""
        elif may_undo_settings(text):
            # At once: a savepoint brings the identity of a block back that has ended since.
            self._value = None
            self.correct()


#: By connection of the driver's, which a pool hands on from one of Django's to another.
_carriers: WeakKeyDictionary[Any, ref[Carrier]] = WeakKeyDictionary()


def notice(driver: Any, statement: object) -> None:
    """A cursor of the driver's connection is about to send a statement.

    Args:
        statement: as psycopg takes it.
    """
    found = _carriers.get(driver)
    carrier = None if found is None else found()
    if carrier is not None:
        carrier.notice(statement)


def _sets_by_hand(text: str, params: Any) -> bool:
    if _SETS.search(text) is None:
        return False
    named = params.values() if isinstance(params, dict) else params or ()
    return _SETTING in text or _SETTING in [one for one in named if isinstance(one, str)]


def carrier_of(connection: Any) -> Carrier | None:
    """The carrier of a connection of Django's, if it has one."""
    wrappers = connection.execute_wrappers
    return next((one for one in wrappers if isinstance(one, Carrier)), None)


def carry(sender: object, connection: Any, **kwargs: Any) -> None:
    """Receiver of ``connection_created``: let the connection carry contexts."""
    if connection.vendor != "postgresql":
        return
    carrier = carrier_of(connection)
    if carrier is None:
        connection.execute_wrappers.insert(0, Carrier(connection))
    else:
        carrier.begin()
