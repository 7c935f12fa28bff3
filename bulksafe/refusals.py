"""The errors that refuse a write, for the places that show them to users."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias

from django.core.exceptions import ValidationError

from bulksafe.exceptions import InvariantViolation, ReceiversNotRun

if TYPE_CHECKING:
    from django.db.models import Model

logger = logging.getLogger("bulksafe")

#: A receiver refuses a write with Django's own ValidationError.
Refusal: TypeAlias = InvariantViolation | ReceiversNotRun | ValidationError
REFUSALS: Final = (InvariantViolation, ReceiversNotRun, ValidationError)


def validation_error(refusal: Refusal) -> ValidationError:
    """The refusal as Django's ValidationError, without the name of a field.

    A ``ReceiversNotRun`` is a mistake in the code that writes, so it is logged as an error.
    """
    if isinstance(refusal, ReceiversNotRun):
        logger.error("A write was refused: %s", refusal, exc_info=refusal)
    return refusal if isinstance(refusal, ValidationError) else refusal.as_validation_error()


def is_about(violation: InvariantViolation, model: type[Model]) -> bool:
    """Whether the violated rule is declared for the rows of ``model``, or of a parent."""
    owner = violation.model
    lineage = {m._meta.concrete_model for m in (model, *model._meta.all_parents)}
    return owner is not None and owner._meta.concrete_model in lineage
