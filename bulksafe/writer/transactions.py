"""The transaction of one connection, as Django and the server see it."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from psycopg.pq import TransactionStatus

from bulksafe import object_state
from bulksafe.exceptions import BrokenTransaction
from bulksafe.writer.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

_IN_TRANSACTION = int(TransactionStatus.INTRANS)


class Transaction:
    """The state of a transaction: whether it is open and usable.

    Args:
        connection: Django's.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection

    @property
    def status(self) -> TransactionStatus | None:
        driver = self.connection.connection
        return None if driver is None else driver.pgconn.transaction_status

    @property
    def is_broken(self) -> bool:
        """Whether the transaction has failed, so no query can run."""
        return self.status in {None, TransactionStatus.INERROR, TransactionStatus.UNKNOWN}

    @property
    def is_begun(self) -> bool:
        """Whether the server has a transaction open: it begins with the first statement."""
        return self.status not in {None, TransactionStatus.IDLE}

    @property
    def is_open(self) -> bool:
        return (
            self.connection.in_atomic_block
            or not self.connection.get_autocommit()
            or self.is_begun_by_hand
        )

    @property
    def is_begun_by_hand(self) -> bool:
        """Whether the transaction was started with a raw ``BEGIN``."""
        return (
            not self.connection.in_atomic_block
            and self.connection.get_autocommit()
            and self.status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}
        )

    def atomic(self, *, may_wait: bool, is_logged: bool) -> AbstractContextManager[None]:
        """A transaction or a savepoint for one write.

        Args:
            may_wait, is_logged: as for ``Block``.
        """
        block = Block(self.connection.alias, may_wait=may_wait, is_logged=is_logged)
        return self._inside_by_hand(block) if self.is_begun_by_hand else block

    @contextmanager
    def _inside_by_hand(self, block: Block) -> Iterator[None]:
        with object_state.in_transaction_begun_by_hand(self.connection), block:
            yield
        # At once, as Django does outside of a transaction.
        self.connection.run_and_clear_commit_hooks()

    def check(self, who: str) -> None:
        """Refuse to continue if Django or PostgreSQL would silently roll everything back.

        Raises:
            BrokenTransaction: the transaction is lost.
        """
        connection = self.connection
        if connection.closed_in_transaction or self.status is None:
            raise BrokenTransaction(
                f"{who} closed the database connection while its transaction was open. Remove "
                f"the close() call."
            )
        if connection.needs_rollback or self.is_broken:
            raise BrokenTransaction(
                f"{who} caught a database error without a savepoint, or called "
                "set_rollback(). Wrap statements that may fail in transaction.atomic()."
            )

    def is_as_before(self, status: TransactionStatus | None) -> bool:
        """Whether a call left the transaction unchanged, by a quick check."""
        now = self.status
        return not self.connection.needs_rollback and now == status and now == _IN_TRANSACTION

    def check_call(self, name: str, *, was_open: bool, status: TransactionStatus | None) -> None:
        """Check that a receiver has not ended or broken the transaction.

        Raises:
            BrokenTransaction: it has.
        """
        if was_open:
            self.check(name)
        if status not in {None, TransactionStatus.IDLE} and not self.is_begun:
            raise BrokenTransaction(
                f"{name} ended its transaction. Remove its COMMIT and ROLLBACK."
            )
