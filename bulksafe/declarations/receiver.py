"""``Receiver``: one function, and the changes that it is called for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from types import MethodType
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.apps import apps
from django.db.models import Model
from django.db.models.signals import m2m_changed

from bulksafe.declarations.options import (
    AFTER_COMMIT,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_QUEUE,
    IN_TRANSACTION,
    REFUSE,
    Backoff,
)
from bulksafe.declarations.parameters import EXTRAS, named_extras
from bulksafe.declarations.senders import label_of_sender, resolve
from bulksafe.declarations.signals import Sender, signal_name

if TYPE_CHECKING:
    from django.db.models import Q
    from django.db.models.expressions import BaseExpression
    from django.dispatch import Signal


@dataclass(frozen=True, eq=False)
class Receiver:
    """One function, called for the changes of the rows of one or more models.

    ``manage.py check`` reports what is wrong with its options.

    Attributes:
        function: what is called. Held strongly.
        name: its lasting name, under which parked events find it again.
        signal: the signal that it was declared for.
        senders: what was given as ``sender``: classes and labels.
        run: ``"after_commit"``, ``"in_transaction"`` or ``"in_database"``.
        when: a condition over the row's old and new state, evaluated in the trigger.
        after: receivers, or their names, that run before this one.
        batch: call it once for many events.
        queue: whose cursors it shares.
        atomic: run it in the transaction that also notes that it ran.
        max_attempts: how often it is tried for an event before that becomes a dead letter.
        on_dead: ``"block"`` or ``"skip"``: what a dead letter means for later events of the row.
        timeout: seconds after which a call is ended; None for the setting's.
        backoff: how long a failed call waits; None for the settings' delays.
        coalesce: changes of a row that wait together become one call.
        otherwise: ``"refuse"`` or ``"after_commit"``: for ``run="in_transaction"``, what becomes of
            a write that another program makes.
        row_by_row: whether each row is stored before the receiver is called for the next; None if
            that is found out while it runs.
        uid: the ``dispatch_uid``; None where there is none.
        given_name: the name that the declaration alone makes, which ``name`` is unless another
            receiver has it.
        full_name: the one that ``name`` is otherwise, with the senders and the signal.
        module: where the function is.
        declared_in: the module that has called ``critical()``.
        app_label: the app whose migrations are to get the triggers; empty for the declaring one.
        argument: for ``Emit``, the keyword argument that carries the instance.
        operations: the changes that it is called for.
    """

    function: Callable[..., Any]
    name: str
    signal: Signal
    senders: tuple[Any, ...]
    run: str = IN_TRANSACTION
    when: Q | BaseExpression | None = None
    after: tuple[Any, ...] = ()
    batch: bool = False
    queue: str = DEFAULT_QUEUE
    atomic: bool = True
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    on_dead: str = "block"
    timeout: float | None = None
    backoff: Backoff = None
    coalesce: bool = False
    otherwise: str = REFUSE
    row_by_row: bool | None = None
    uid: Hashable = None
    given_name: str = ""
    full_name: str = ""
    module: str = ""
    declared_in: str = ""
    app_label: str = ""
    argument: str = "instance"
    operations: tuple[str, ...] = ()
    _kept: list[Any] = field(default_factory=lambda: [None, None], init=False, repr=False)

    @cached_property
    def signal_name(self) -> str:
        return signal_name(self.signal)

    @cached_property
    def is_async(self) -> bool:
        """Whether the function is, or the ``__call__`` of what is called like one."""
        called = getattr(self.function, "__call__", None)  # noqa: B004
        return iscoroutinefunction(self.function) or iscoroutinefunction(called)

    @cached_property
    def extras(self) -> frozenset[str]:
        """Which of bulksafe's own arguments it gets; an ``Emit`` sends all of them."""
        if self.is_emit:
            return frozenset(EXTRAS)
        return named_extras(self.function).intersection(self.known_extras)

    @property
    def known_extras(self) -> frozenset[str]:
        """Which of bulksafe's own arguments there are for a call of it."""
        if self.signal is m2m_changed:
            # A call is about many rows, which are links.
            return frozenset({"event_id", "context"})
        # Each of the events of a batch has them.
        return frozenset() if self.batch else frozenset(EXTRAS)

    @property
    def has_uid(self) -> bool:
        """Whether it was given a ``dispatch_uid``: to Django, an empty one is none."""
        return bool(self.uid)

    @cached_property
    def encoded_name(self) -> bytes:
        """Its name for shared memory, which many calls write to."""
        return self.name.encode()

    @property
    def is_inline(self) -> bool:
        """Whether it runs in the writer's transaction."""
        return self.run == IN_TRANSACTION

    @property
    def is_listened(self) -> bool:
        """Whether the listener may have to run it."""
        return self.run == AFTER_COMMIT or (self.is_inline and self.otherwise == AFTER_COMMIT)

    @property
    def is_emit(self) -> bool:
        return isinstance(self.function, Sender)

    def __repr__(self) -> str:
        return f"<critical receiver {self.name}>"

    def models(self) -> list[type[Model]]:
        """The concrete models whose rows it is called for; unknown senders are left out."""
        found: dict[type[Model], None] = {}
        for sender in self.senders:
            for model in self.models_for(sender):
                found[model] = None
        return list(found)

    def models_for(self, sender: object) -> list[type[Model]]:
        """The concrete models that one of its senders stands for."""
        return resolve(sender, are_links=self.signal is m2m_changed)

    def senders_of(self, label: str) -> set[str]:
        """The labels of the senders that stand for the model of a label, in lower case."""
        return {
            label_of_sender(sender).lower()
            for sender in self.senders
            if label in {model._meta.label_lower for model in self.models_for(sender)}
        }

    def is_called_for(self, label: str) -> bool:
        """Whether the model of this label, in lower case, is one of ``models()``."""
        return label in self.labels()

    def labels(self) -> frozenset[str]:
        """The labels of ``models()``, kept until a model is declared: each write asks for them."""
        known = apps.get_models(include_auto_created=True) if apps.models_ready else None
        if known is None or self._kept[0] is not known:
            self._kept[:] = known, frozenset(model._meta.label_lower for model in self.models())
        found: frozenset[str] = self._kept[1]
        return found


def is_same_callable(one: object, other: object) -> bool:
    """Whether both are one function, or one method of one object.

    A bound method is a new object each time. Other callables may be equal and yet two.
    """
    return one is other or (isinstance(one, MethodType) and one == other)
