"""Calls the function of a receiver, which may be asynchronous."""

from __future__ import annotations

import asyncio
import inspect
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping


def call(function: Callable[..., object], named: Mapping[str, Any]) -> None:
    """Call a receiver and wait for its end, as Django's ``send()`` does.

    Checks the result, not the function: a decorator may hide that it is asynchronous.
    """
    result = function(**named)
    if inspect.iscoroutine(result):
        _Run(result).until_done()


class _Run:
    """Runs a coroutine, which ends when the waiting call ends.

    Its ORM calls run in the waiting thread, on that thread's connection.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._coroutine = coroutine
        self._ended = threading.Event()
        self._cancel: Callable[[], object] | None = None

    def until_done(self) -> None:
        try:
            async_to_sync(self._await)()
        except BaseException:
            self._stop()
            raise

    async def _await(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
        try:
            await self._coroutine
        finally:
            self._ended.set()

    def _stop(self) -> None:
        """End a coroutine that a timeout interrupted, or that a running event loop refused.

        It runs in a separate thread, so it would continue after the call and the rollback.
        """
        if self._cancel is None:
            self._coroutine.close()
        elif not self._ended.is_set():
            self._cancel()
            self._ended.wait()
