"""One write in progress: opens its transaction, and delivers its changes at the end."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from bulksafe.contexts import correct
from bulksafe.writer.scopes import Scope

if TYPE_CHECKING:
    from types import TracebackType

    from bulksafe.writer.session import Session


class OpenWrite(AbstractContextManager[Scope]):
    """Make a scope the innermost of its session.

    A class, since a generator would turn the StopIteration of a receiver into a RuntimeError.

    Raises:
        BrokenTransaction: the write was rolled back, and the error was caught.
    """

    def __init__(self, session: Session, scope: Scope) -> None:
        self.session = session
        self.scope = scope
        self._transaction = ExitStack()

    def __enter__(self) -> Scope:
        session = self.session
        if session.due and session.scopes:
            # Earlier changes of an outer write belong to that write.
            session.gather(session.scopes[-1])
        self.scope.observers = session.observers
        session.scopes.append(self.scope)
        try:
            may_wait = not (session.due or session.observers)
            block = session.transaction.atomic(may_wait=may_wait, is_logged=self.scope.is_logged)
            self._transaction.enter_context(block)
        except BaseException:
            session.scopes.remove(self.scope)
            raise
        return self.scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scopes = self.session.scopes
        try:
            if error is not None:
                self._transaction.__exit__(kind, error, traceback)
                return
            with self._transaction:
                self.session.settle(self.scope)
                self.session.transaction.check("A receiver that Django calls for this write")
                # On-commit callbacks are not part of the write.
                scopes.remove(self.scope)
        finally:
            if self.scope in scopes:
                scopes.remove(self.scope)
        if not scopes:
            # The next statement is the caller's, not a receiver's.
            correct()
