"""Recognizes the changes of a write when it is executed a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from django.db.models import DateField, TimeField
from django.utils.functional import cached_property

from bulksafe.caching import forever, per_model
from bulksafe.writer.instances import STEADY, has_new_key, is_numbered

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from typing import Any

    from django.db.models import Model

    from bulksafe.dispatch.images import Image
    from bulksafe.writer.changes import InlineChange

#: The names of new rows, by their generated keys in one execution.
Fresh: TypeAlias = "dict[tuple[str, Any], Hashable]"


class Fingerprint:
    """Both images of a change as text, with names instead of the keys of new rows.

    As text: a NaN does not equal itself. Computed lazily, since comparisons are rare.
    """

    def __init__(self, change: InlineChange, fresh: Fresh) -> None:
        self._change = change
        self._images = change.old_image, change.new_image
        self._fresh = fresh
        if not all(
            image is None or STEADY.issuperset(map(type, image.values)) for image in self._images
        ):
            # A receiver may change such a value in place.
            self._texts  # noqa: B018

    @cached_property
    def _texts(self) -> tuple[str, str]:
        old, new = (_as_text(image, self._change, self._fresh) for image in self._images)
        return old, new

    @property
    def old(self) -> str:
        return self._texts[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented
        return self is other or self._texts == other._texts

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Found:
    """A change of one execution.

    Attributes:
        name: the same in every execution of the write.
        change: the change.
        print: its fingerprint.
    """

    name: Hashable
    change: InlineChange
    print: Fingerprint


def recognizable(changes: Sequence[InlineChange]) -> list[Found]:
    """The changes of one execution, in their order.

    New rows are numbered, since the database gives them different keys each time. All others are
    identified by their rows.
    """
    numbers: dict[type[Model], int] = {}
    seen: dict[Hashable, int] = {}
    fresh: Fresh = {}
    names: list[Hashable] = []
    for change in changes:
        name: Hashable
        if change.created and has_new_key(change.model):
            numbers[change.model] = numbers.get(change.model, 0) + 1
            name = ("new", change.model, numbers[change.model])
            fresh[change.new_row] = name
        else:
            row = (change.event.operation, fresh.get(change.row, change.row))
            seen[row] = seen.get(row, 0) + 1
            name = (*row, seen[row])
        names.append(name)
    return [
        Found(name, change, Fingerprint(change, fresh))
        for name, change in zip(names, changes, strict=True)
    ]


def differing(earlier: Found, later: Found) -> set[str] | None:
    """The attributes that differ between two executions, for example because of ``Now()``.

    Returns:
        None if the row differed before the write.
    """
    if earlier.print.old != later.print.old:
        return None
    seen, written = earlier.change.new_image, later.change.new_image
    assert seen is not None  # noqa: S101
    assert written is not None  # noqa: S101
    pairs = zip(seen.table.attnames, seen.values, written.values, strict=True)
    different = {name for name, value, other in pairs if value != other}
    if later.change.created:
        # Keys that the database generates distinguish new rows, and say nothing of their content.
        keys = later.change.model._meta.pk_fields
        different -= {key.attname for key in keys if is_numbered(key)}
    return different


def may_differ(change: InlineChange, attributes: set[str]) -> bool:
    """Whether it may be the same row although these attributes differ between two executions."""
    return not change.created or attributes <= _set_by_execution(change.model)


@per_model(forever)
def _set_by_execution(model: type[Model]) -> frozenset[str]:
    """The attributes whose values may depend on the execution: times, and defaults."""
    return frozenset(
        one.attname
        for one in model._meta.concrete_fields
        if isinstance(one, DateField | TimeField) or one.has_db_default() or one.generated
    )


@per_model(forever)
def _references(model: type[Model]) -> list[tuple[str, str]]:
    """The fields that hold keys of rows, with the label of the rows' model."""
    found = []
    one: Any
    for one in model._meta.concrete_fields:
        if one.primary_key or (one.is_relation and one.target_field.primary_key):
            known = one.related_model if one.is_relation else one.model
            found.append((one.attname, known._meta.concrete_model._meta.label_lower))
    return found


def _as_text(image: Image | None, change: InlineChange, fresh: Fresh) -> str:
    if image is None or not fresh:
        return repr(image and image.values)
    values = dict(zip(image.table.attnames, image.values, strict=True))
    for name, label in _references(change.model):
        values[name] = fresh.get((label, values[name]), values[name])
    if change.created and change.model._meta.pk_fields[1:]:
        for key in change.model._meta.pk_fields:
            values[key.attname] = None if is_numbered(key) else values[key.attname]
    return repr(values)
