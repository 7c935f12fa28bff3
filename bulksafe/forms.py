"""What a ModelForm knows about the fields that it lacks."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Field, Model
    from django.forms.models import BaseModelForm

_form: ContextVar[BaseModelForm[Any] | None] = ContextVar("bulksafe_form", default=None)


@contextmanager
def validating(form: BaseModelForm[Any]) -> Iterator[None]:
    """While ``form`` validates its instance."""
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


def known_fields(instance: Model) -> set[str]:
    """The fields that the form of ``instance`` lacks, and whose values its ``save()`` will store.

    In a new instance, a field with its default is not among them: views set it after
    ``form.save(commit=False)``. Empty if no form validates the instance.
    """
    form = _form.get()
    if form is None or form.instance is not instance:
        return set()
    return {
        field.name
        for field in instance._meta.concrete_fields
        if field.name not in form.fields
        and not (instance._state.adding and _has_default(instance, field))
    }


def _has_default(instance: Model, field: Field[Any, Any]) -> bool:
    if field.has_default() and callable(field.default):
        # It gives a different value each time.
        return True
    return bool(getattr(instance, field.attname) == field.get_default())
