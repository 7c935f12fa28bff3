"""``Check``: a condition that every row satisfies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.declarations.base import Invariant
from bulksafe.declarations.dependencies import field_name, referenced_names
from bulksafe.declarations.modes import ENFORCE, Mode

if TYPE_CHECKING:
    import pgtrigger
    from django.db import models
    from django.db.models import Q
    from django.db.models.expressions import Combinable
    from django.utils.functional import _StrOrPromise


class Check(Invariant):
    """Every row satisfies ``Model.objects.annotate(**annotations).filter(condition)``.

    Unknown (NULL) passes, as in SQL and in Django's ``CheckConstraint``.

    ``old__…`` and ``new__…`` in a lookup or in an ``F()`` stand for the row before and after the
    change. A condition that mentions ``old__`` is a rule for updates, unless ``operation`` says
    otherwise. In a rule for deletes a plain name means the row that is deleted.

    Args:
        condition: a ``Q`` or another boolean expression over the columns of the row.
        name: unique for the model; at most 47 letters, digits, ``-`` and ``_``.
        message: what a violation says; may be translatable.
        deferred: judge the row as it is at the end of the transaction.
        operation: ``pgtrigger.Insert``, ``Update`` and ``Delete``, joined with ``|``.
        mode: ``"enforce"`` refuses a row that breaks the rule, ``"new"`` only a change that breaks
            a row that kept it, ``"observe"`` nothing: it records the row.
        **annotations: named expressions that the condition may use.
    """

    def __init__(
        self,
        condition: Q | Combinable | None = None,
        *,
        name: str | None = None,
        message: _StrOrPromise | None = None,
        deferred: bool = False,
        operation: pgtrigger.Operation | None = None,
        mode: Mode = ENFORCE,
        **annotations: Any,
    ) -> None:
        super().__init__(name=name, message=message, mode=mode)
        self.condition = condition
        self.deferred = deferred
        self.operation = operation
        self.annotations = annotations

    def about(self, model: type[models.Model]) -> set[str]:
        paths = [
            path.removeprefix("old__").removeprefix("new__")
            for expression in (self.condition, *self.annotations.values())
            for path in referenced_names(expression)
        ]
        return {field_name(model, path.split("__")[0]) for path in paths} - self.annotations.keys()
