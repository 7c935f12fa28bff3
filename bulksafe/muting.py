"""``bulksafe.muted``: mutes invariants for the duration of a block."""

from __future__ import annotations

import inspect
from contextlib import ContextDecorator, ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections, router, transaction

from bulksafe.declarations import Declared, declared
from bulksafe.planning.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

_Function = TypeVar("_Function", bound="Callable[..., Any]")

_SETTING = "bulksafe.muted"

#: Functions that return before they have run.
_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class muted(ContextDecorator):  # noqa: N801  (used as a function, like contextlib's)
    """Switch invariants off for a block, for data repairs and tests.

    The block is a transaction (``atomic``), and the mute is a setting local to it. It ends with the
    block, at a rollback or with a lost connection, and cannot affect a different transaction on the
    same pooled connection. Blocks nest.

    Rows that break an invariant stay as they are; the next write to such a row is refused.

    Args:
        *invariants: labels, ``"shop.Order:discount_within_amount"``.
        using: the database; by default the databases that the models are written to.

    Raises:
        LookupError: there is no such invariant.
        TypeError: the decorated function is a generator or asynchronous, and would run unmuted.
    """

    def __init__(self, *invariants: str, using: str | None = None) -> None:
        self.invariants = invariants
        self.using = using
        self._stacks: list[ExitStack] = []

    def __call__(self, func: _Function) -> _Function:
        if any(is_later(func) for is_later in _LATER):
            raise TypeError(
                f"bulksafe.muted() cannot decorate {func.__qualname__}(): its body runs after the "
                "call has returned. Use “with bulksafe.muted(…):” in a plain function."
            )
        return super().__call__(func)

    def _recreate_cm(self) -> muted:
        return type(self)(*self.invariants, using=self.using)

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for alias, labels in self._by_database().items():
                stack.enter_context(transaction.atomic(using=alias))
                stack.enter_context(_Setting(alias, labels))
            self._stacks.append(stack.pop_all())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._stacks.pop().__exit__(kind, error, traceback)

    def _by_database(self) -> dict[str, list[str]]:
        if not self.invariants:
            raise LookupError("bulksafe.muted() needs the labels of the invariants to mute.")
        known = {item.label: item for item in declared()}
        databases: dict[str, list[str]] = {}
        for label in self.invariants:
            alias = self.using or router.db_for_write(_known(label, known).model)
            databases.setdefault(alias, []).append(label)
        return databases


def _known(label: str, known: dict[str, Declared]) -> Declared:
    if label not in known:
        listed = f"Declared are: {', '.join(sorted(known)) or 'none'}."
        raise LookupError(f"There is no invariant {label!r}. {did_you_mean(label, known, listed)}")
    return known[label]


class _Setting:
    """Adds labels to the transaction's setting and restores the previous value."""

    def __init__(self, alias: str, labels: Iterable[str]) -> None:
        self.connection = connections[alias]
        self.labels = list(labels)
        self.before = ""

    def __enter__(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT current_setting(%s, true)", [_SETTING])
            self.before = cursor.fetchone()[0] or ""
            cursor.execute(
                "SELECT set_config(%s, "
                "(COALESCE(NULLIF(%s, ''), '{}')::text[] || %s::text[])::text, true)",
                [_SETTING, self.before, self.labels],
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After an error, the following rollback restores the setting.
        if error is None and not self.connection.needs_rollback:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT set_config(%s, %s, true)", [_SETTING, self.before])
