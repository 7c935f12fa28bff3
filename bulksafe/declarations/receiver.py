"""``Receiver``: one function, and the changes that it is called for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.apps import apps
from django.db.models import Model
from django.db.models.signals import m2m_changed
from django.utils.functional import cached_property

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
        function: the callable, referenced strongly.
        name: its permanent name, which parked events store.
        signal: the signal that it was declared for.
        senders: the ``sender`` argument: classes and labels.
        run: ``"after_commit"``, ``"in_transaction"`` or ``"in_database"``.
        when: a condition over the row's old and new state, evaluated in the trigger.
        after: receivers, or their names, that run before this one.
        batch: call it once for many events.
        queue: whose cursors it shares.
        atomic: run it in the transaction that also records the call.
        max_attempts: how often it is tried for an event before that becomes a dead letter.
        on_dead: ``"block"`` or ``"skip"``: the effect of a dead letter on later events of the row.
        timeout: seconds after which a call is ended; None for the setting's.
        backoff: how long a failed call waits; None for the settings' delays.
        coalesce: changes of a row that wait together become one call.
        otherwise: ``"refuse"``, ``"after_commit"`` or ``"observe"``: for ``run="in_transaction"``,
            how writes of other programs are handled.
        row_by_row: whether each row is stored before the receiver is called for the next; None if
            that is determined at run time.
        uid: the ``dispatch_uid``; None where there is none.
        given_name: the name from the declaration alone; equals ``name`` unless another receiver has
            it.
        full_name: the name with senders and signal, used for ``name`` in that case.
        module: the function's module.
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
        """Whether the function, or the object's ``__call__``, is asynchronous."""
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
        """Which of bulksafe's own arguments a call of it can have."""
        if self.signal is m2m_changed:
            # A call is for many rows, which are links.
            return frozenset({"event_id", "context"})
        # Each of the events of a batch has them.
        return frozenset() if self.batch else frozenset(EXTRAS)

    @property
    def has_uid(self) -> bool:
        """Whether it has a ``dispatch_uid``; like Django, treats an empty one as none."""
        return bool(self.uid)

    @cached_property
    def encoded_name(self) -> bytes:
        """Its encoded name, cached because every call writes it to shared memory."""
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
        """The concrete models of its senders; unknown senders are left out."""
        found: dict[type[Model], None] = {}
        for sender in self.senders:
            for model in self.models_for(sender):
                found[model] = None
        return list(found)

    def models_for(self, sender: object) -> list[type[Model]]:
        """The concrete models that one of its senders stands for."""
        return resolve(sender, are_links=self.signal is m2m_changed)

    def senders_of(self, label: str) -> set[str]:
        """The labels of the senders that cover the model with this lower-case label."""
        return {
            label_of_sender(sender).lower()
            for sender in self.senders
            if label in {model._meta.label_lower for model in self.models_for(sender)}
        }

    def is_called_for(self, label: str) -> bool:
        """Whether the model with this lower-case label is one of ``models()``."""
        return label in self.labels()

    def labels(self) -> frozenset[str]:
        """The labels of ``models()``, cached until a model is declared: each write needs them."""
        known = apps.get_models(include_auto_created=True) if apps.models_ready else None
        if known is None or self._kept[0] is not known:
            self._kept[:] = known, frozenset(model._meta.label_lower for model in self.models())
        found: frozenset[str] = self._kept[1]
        return found


def is_same_callable(one: object, other: object) -> bool:
    """Whether both are the same function, or the same method of the same object.

    A bound method is a new object each time. Other callables may compare equal and still differ.
    """
    return one is other or (isinstance(one, MethodType) and one == other)
