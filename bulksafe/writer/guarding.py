"""Noticing who uses the driver's connection past Django's cursors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bulksafe.object_state import put_before_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What does not ask the database anything.
_HARMLESS = frozenset({"info", "closed", "broken", "pgconn"})


class Guard:
    """Stands before the driver's connection.

    Args:
        driver: the connection.
        withdraw: called before it is used.
    """

    def __init__(self, driver: Any, withdraw: Callable[[], None]) -> None:
        self.__dict__["_guarded"] = driver, withdraw

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._guarded[0])

    def __getattr__(self, name: str) -> Any:
        driver, withdraw = self.__dict__["_guarded"]
        if name not in _HARMLESS:
            withdraw()
        return getattr(driver, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_guarded"][0], name, value)


@contextmanager
def guarding(connection: Any, withdraw: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Let a connection of Django's have a guard.

    Yields a function that takes it away.
    """
    driver = connection.connection
    guard = Guard(driver, withdraw)
    put_before_driver(connection, guard)

    def end() -> None:
        # A receiver may have kept it.
        guard.__dict__["_guarded"] = driver, lambda: None
        if connection.connection is guard:
            put_before_driver(connection, driver)

    try:
        yield end
    finally:
        end()
