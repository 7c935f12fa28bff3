"""Patches for declarations: ``Meta.triggers``, and validation of instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pgtrigger.apps
from django.db.models import Model
from django.forms.models import BaseModelForm
from pgtrigger import features

from bulksafe import forms, validation
from bulksafe.declarations.registry import register_meta_triggers
from bulksafe.patches.patching import Patch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import BaseConstraint

    from bulksafe.patches.patching import Original

    #: The constraints of a model and its parents, as ``Model.get_constraints()`` lists them.
    Constraints: TypeAlias = list[
        tuple[type[Model], Sequence[BaseConstraint | validation.Validator]]
    ]


def _get_constraints(original: Original[Constraints], self: Model) -> Constraints:
    return [*original(self), *validation.constraints_of(type(self))]


def _post_clean(original: Original[None], self: BaseModelForm[Any]) -> None:
    with forms.validating(self):
        original(self)


def _register_triggers_from_meta(original: Original[None]) -> None:
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
    Patch(
        BaseModelForm,
        "_post_clean",
        _post_clean,
        "Only a form can tell a field that it lacks, whose value will be stored, from a field with "
        "an error: Django excludes both from validation in one set.",
    ),
)
