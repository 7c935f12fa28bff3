"""``Emit``: a custom signal for a change of a row, on every write path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pgtrigger

from bulksafe.declarations import options, receivers
from bulksafe.declarations.receiver import Receiver
from bulksafe.declarations.signals import DELETE, INSERT, UPDATE, Sender

if TYPE_CHECKING:
    from django.db import models
    from django.db.models import Q
    from django.db.models.expressions import BaseExpression
    from django.dispatch import Signal


class Emit:
    """Send ``signal`` from the listener, after the commit, for every row that matches ``when``.

    The typed domain event: ``order_fulfilled`` reaches its receivers with ``sender`` (the model),
    the instance under the name ``argument``, ``old``, ``changed``, ``context``, ``event_id``,
    ``created`` and ``using``. ``send_robust`` is used: a failing receiver does not stop the others.
    A failure is retried like that of a critical receiver, with all receivers.

    Args:
        signal: a ``django.dispatch.Signal``.
        when: a ``Q`` over ``old__…`` and ``new__…``, as for ``bulksafe.critical``.
        name: unique for the model.
        argument: the keyword argument that carries the instance.
        operation: ``pgtrigger.Insert``, ``Update`` and ``Delete``, joined with ``|``; inserts and
            updates by default.
        queue, max_attempts, on_dead, timeout, backoff: as for ``bulksafe.critical``.
    """

    def __init__(
        self,
        signal: Signal | None = None,
        *,
        when: Q | BaseExpression | None = None,
        name: str = "",
        argument: str = "instance",
        operation: pgtrigger.Operation | None = None,
        queue: str = options.DEFAULT_QUEUE,
        max_attempts: int = options.DEFAULT_MAX_ATTEMPTS,
        on_dead: options.OnDead = "block",
        timeout: float | None = None,
        backoff: options.Backoff = None,
    ) -> None:
        # The system check E115 refuses None.
        self.signal: Any = signal
        self.when = when
        self.name = name
        self.argument = argument
        self.operation = operation
        self.queue = queue
        self.max_attempts = max_attempts
        self.on_dead = on_dead
        self.timeout = timeout
        self.backoff = backoff

    def register(self, model: type[models.Model]) -> None:
        """Make it a receiver of ``model``, named ``"shop.Order:name"``."""
        name = f"{model._meta.label}:{self.name}"
        receivers.add(
            Receiver(
                function=Sender(self.signal),
                name=name,
                given_name=name,
                full_name=name,
                signal=self.signal,
                senders=(model,),
                run=options.AFTER_COMMIT,
                when=self.when,
                queue=self.queue,
                max_attempts=self.max_attempts,
                on_dead=self.on_dead,
                timeout=self.timeout,
                backoff=self.backoff,
                uid=self.name,
                module=model.__module__,
                argument=self.argument,
                operations=self._operations(),
            )
        )

    def _operations(self) -> tuple[str, ...]:
        if not isinstance(self.operation, pgtrigger.Operation):
            return (INSERT, UPDATE)
        named = {getattr(event, "name", UPDATE) for event in self.operation}
        return tuple(name for name in (INSERT, UPDATE, DELETE) if name in named)
