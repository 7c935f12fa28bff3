"""Patches for declarations: ``Meta.triggers``, and validation of instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pgtrigger.apps
from django.db.models import Model
from pgtrigger import features

from bulksafe import validation
from bulksafe.declarations.registry import register_meta_triggers
from bulksafe.patches.patching import Patch

if TYPE_CHECKING:
    from collections.abc import Callable


def _get_constraints(original: Callable[..., Any], self: Model) -> Any:
    return [*original(self), *validation.constraints_of(type(self))]


def _register_triggers_from_meta(original: Callable[..., Any]) -> None:
    if features.model_meta():  # type: ignore[no-untyped-call]
        register_meta_triggers()


EARLY = (
    Patch(
        pgtrigger.apps,
        "register_triggers_from_meta",
        _register_triggers_from_meta,
        "pgtrigger raises TypeError for an entry that is no trigger, and KeyError for a name used "
        "twice. Both end django.setup(), before a system check can report the mistake.",
    ),
    Patch(
        Model,
        "get_constraints",
        _get_constraints,
        "full_clean() validates the invariants: Model.validate_constraints() asks for the "
        "constraints of a model and its parents here.",
    ),
)
