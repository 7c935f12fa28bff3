"""The commands that wait for the next statement of a driver connection."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import errors, generators
from psycopg.pq import ExecStatus, TransactionStatus

from bulksafe.joining.texts import ends_savepoints
from bulksafe.object_state import attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from psycopg import Connection

    #: What psycopg's own functions of this kind return.
    Steps: TypeAlias = Generator[Any, Any, Any]

#: Lists the commands, which Django does not log.
logger = logging.getLogger("bulksafe.sql")

_IDLE, _INERROR = int(TransactionStatus.IDLE), int(TransactionStatus.INERROR)

_COMMANDS = "_bulksafe_commands"


class Commands:
    """The commands that wait for one driver connection.

    Attributes:
        begins: whether bulksafe's own transaction begins with the next statement.
        is_own: whether the transaction is bulksafe's own.
        lost: savepoints that do not exist, because their message had a syntax error.
    """

    def __init__(self) -> None:
        self.begins = self.is_own = False
        self.lost: set[str] = set()
        #: SQL by the name of its savepoint, in order.
        self._waiting: list[tuple[str, str]] = []
        #: bulksafe's own, by name; and those that were never set.
        self._savepoints: set[str] = set()
        self._withdrawn: set[str] = set()
        self._is_joining = self._is_sending = False

    # Savepoints.

    def set_savepoint(self, name: str, sql: str) -> None:
        """Set a savepoint with the next statement.

        Args:
            sql: the SAVEPOINT command.
        """
        self._savepoints.add(name)
        self._waiting.append((name, sql))

    def note_savepoint(self, name: str) -> None:
        """Note a savepoint of bulksafe's that is set already."""
        self._savepoints.add(name)

    def has_savepoint(self, name: str) -> bool:
        """Whether it is a savepoint of bulksafe's, set or still to be set."""
        return name in self._savepoints

    def withdraw(self, name: str) -> bool:
        """Do not set a savepoint that was to be set, nor those inside it.

        Returns:
            whether it was still waiting, so that no statement has been sent since.
        """
        place = next((n for n, (one, _) in enumerate(self._waiting) if one == name), None)
        if place is None:
            return False
        del self._waiting[place:]
        self._withdrawn.add(name)
        return True

    def release(self, name: str, sql: str) -> None:
        """Release a savepoint with the next statement, unless it was never set.

        Args:
            sql: the RELEASE command.
        """
        self._savepoints.discard(name)
        self.withdraw(name)
        if name in self._withdrawn:
            self._withdrawn.discard(name)
        else:
            self._waiting.append((name, sql))

    def clear(self) -> None:
        """The transaction returns to an earlier savepoint, or ends."""
        self._withdrawn.update(name for name, _ in self._waiting if name in self._savepoints)
        self._waiting.clear()

    def end(self) -> None:
        """The transaction has ended."""
        self._waiting.clear()
        self._savepoints.clear()
        self._withdrawn.clear()
        self.lost.clear()
        self.begins = self.is_own = False

    def begin(self, *, may_wait: bool) -> None:
        """A transaction of bulksafe's own begins.

        Args:
            may_wait: whether with the next statement, in the same message.
        """
        self.begins, self.is_own = may_wait, True

    # Sending.

    @property
    def is_joining(self) -> bool:
        """Whether the statement being sent carries the commands."""
        return self._is_joining

    def has_work(self, driver: Connection[Any]) -> bool:
        return bool(self._waiting) or (
            self.begins and driver.pgconn.transaction_status == _IDLE and not driver.autocommit
        )

    @property
    def needs_parsed(self) -> bool:
        """Whether only a text that the server has parsed may carry the commands.

        A syntax error anywhere in a message runs nothing of it: the savepoint that should contain
        the error would not exist.
        """
        return self.begins or any(name in self._savepoints for name, _ in self._waiting)

    @property
    def are_idle(self) -> bool:
        """Whether nothing waits, and no block of bulksafe's is open."""
        return not (self._waiting or self._savepoints or self.is_own)

    @property
    def is_in_write(self) -> bool:
        """Whether a block of bulksafe's is open."""
        return self.is_own or bool(self._savepoints)

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Let the statement of the block carry the commands."""
        self._is_joining = True
        try:
            yield
        finally:
            self._is_joining = False

    def take(self, driver: Any) -> list[tuple[str, bytes]]:
        """The commands for a message, with the names of their savepoints."""
        status = driver.pgconn.transaction_status
        found: list[tuple[str, bytes]] = []
        if not driver.autocommit and status == _IDLE:
            found.append(("", driver._get_tx_start_command()))
            self.begins = False
        elif status in {_IDLE, _INERROR}:
            # Without a transaction there are no savepoints; in a failed one, only a rollback works.
            self.clear()
        found += [(name, sql.encode(driver.info.encoding)) for name, sql in self._waiting]
        self._waiting.clear()
        return found

    def lose(self, names: list[str]) -> None:
        """The server has not run the commands of a message."""
        self.lost.update(name for name in names if name in self._savepoints)

    def flush(self, driver: Any) -> Steps:
        """Send the commands in a message of their own; the transaction has begun."""
        self.begins = False
        commands = self.take(driver)
        if not commands:
            return
        if driver._pipeline:
            self._is_sending = True
            try:
                for _, sql in commands:
                    yield from driver._exec_command(sql)
            finally:
                self._is_sending = False
            return
        message = b"; ".join(sql for _, sql in commands)
        logger.debug("%s", message.decode(driver.info.encoding))
        driver.pgconn.send_query(message)
        for result in (yield from generators.execute(driver.pgconn)):
            if result.status == ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result, encoding=driver.info.encoding)

    def precede(self, driver: Any, command: object) -> Steps:
        """Send the commands before one of psycopg's own, such as its COMMIT."""
        if self._is_sending or not self._waiting:
            return
        if ends_savepoints(command):
            self.clear()
        elif driver.pgconn.transaction_status != _IDLE:
            yield from self.flush(driver)


def commands_of(driver: Connection[Any]) -> Commands:
    """The commands that wait for a driver connection."""
    kept = attributes(driver)
    if _COMMANDS not in kept:
        kept[_COMMANDS] = Commands()
    found: Commands = kept[_COMMANDS]
    return found


def begun_commands_of(driver: Connection[Any]) -> Commands | None:
    """The same, if there have been any."""
    # Each statement asks.
    return driver.__dict__.get(_COMMANDS)


# For psycopg's generators of the same names, which all of its cursors use.


def start_query(original: Callable[..., Steps], driver: Any) -> Steps:
    """Send the commands before a statement that cannot carry them."""
    found = begun_commands_of(driver)
    if found is None:
        return original(driver)
    if found.is_joining:
        return iter(())  # type: ignore[return-value]  # nothing to wait for
    return _start_and_flush(original, driver, found)


def _start_and_flush(original: Callable[..., Steps], driver: Any, commands: Commands) -> Steps:
    yield from original(driver)
    yield from commands.flush(driver)


def exec_command(
    original: Callable[..., Steps], driver: Any, command: object, *args: Any, **kwargs: Any
) -> Steps:
    """Send the commands before one of psycopg's own."""
    found = begun_commands_of(driver)
    if found is not None:
        yield from found.precede(driver, command)
    result = yield from original(driver, command, *args, **kwargs)
    return result
