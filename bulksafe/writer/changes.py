"""One change of a row, as receivers in the writer's transaction see it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db.models import Model
from django.db.models.fields.files import FileDescriptor
from django.db.models.query_utils import DeferredAttribute

from bulksafe.dispatch.changes import Change
from bulksafe.outbox.events import INSERTED, UPDATED

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from django.db.models import Field

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.images import Table


@dataclass
class InlineChange(Change):
    """A change that was taken from the buffer.

    Attributes:
        met: the receivers that it is for, by their conditions.
        done: those that have been called for it already.
        given_fields: what ``update_fields`` is, if the write says so.
        given_origin: the instance or the queryset that a deletion came from.
        written_in: the receivers in which the write was made, each because of the one before.
    """

    met: frozenset[Receiver] = frozenset()
    done: set[Receiver] = field(default_factory=set)
    given_fields: frozenset[str] | None = None
    given_origin: Any = None
    written_in: tuple[str, ...] = ()

    @cached_property
    def announced(self) -> set[Receiver]:
        """The receivers of ``m2m_changed`` that have had the first of their two calls."""
        return set()

    @property
    def table(self) -> Table:
        image = self.new_image or self.old_image
        assert image is not None  # noqa: S101  (a change has at least one side)
        return image.table

    @cached_property
    def row(self) -> tuple[str, Any]:
        """Tells rows apart, also those of instances in hand."""
        return row_of(self.model, self.key(old=True))

    @cached_property
    def new_row(self) -> tuple[str, Any]:
        """The same after the change, which may have been one of the key."""
        if self.old_image is None or self.new_image is None:
            return self.row
        return row_of(self.model, self.key())

    def key(self, *, old: bool = False) -> Hashable:
        """The primary key as Python has it; after the change, or before it."""
        image = (self.old_image if old else self.new_image) or self.new_image or self.old_image
        assert image is not None  # noqa: S101
        found: Hashable = image.table.key(image.values)
        return found

    @cached_property
    def context(self) -> Mapping[str, Any]:
        return self.event.context

    @property
    def written_by(self) -> tuple[str, ...]:
        return self.written_in

    @property
    def update_fields(self) -> frozenset[str] | None:
        if self.created:
            return None
        return self.changed if self.given_fields is None else self.given_fields

    @property
    def origin(self) -> Any:
        return self.instance if self.given_origin is None else self.given_origin

    def begin_with(self, earlier: InlineChange) -> None:
        """Reach back to where an earlier change of the row began."""
        if earlier is not self:
            operation = INSERTED if earlier.created else self.event.operation
            self.event = replace(self.event, operation=operation, first=earlier.event.before)
            self.old_image = earlier.old_image
            self.met |= earlier.met
            self._instances.pop("old", None)
            self._forget()

    def end_with(self, later: InlineChange) -> None:
        """Go on to where a later change of the row ended."""
        self.new_image = later.new_image
        self.met |= later.met
        self._forget()

    def _forget(self) -> None:
        for name in ("changed", "row", "new_row"):
            self.__dict__.pop(name, None)

    def take_in_hand(self, instance: Model) -> None:
        """Let receivers have this instance of the row."""
        self._instances["old" if self.deleted else "new"] = instance

    @property
    def is_in_hand(self) -> bool:
        return ("old" if self.deleted else "new") in self._instances

    def _instance(self, side: str) -> Model | None:
        if side == "new" and side not in self._instances and self.event.operation == UPDATED:
            self._instances[side] = self._updated()
        return super()._instance(side)

    def _updated(self) -> Model | None:
        """The row as it was, with the new values set on it: trackers of fields see the change."""
        if self.old_image is None or self.new_image is None:
            return None
        table = self.new_image.table
        instance = self.old_image.instance()
        pairs = zip(self.old_image.values, self.new_image.values, strict=True)
        changed = {
            table.attnames[place]: table.converted_at(place, after)
            for place, (before, after) in enumerate(pairs)
            if before != after
        }
        assign(instance, changed)
        return instance


def assign(instance: Model, values: Mapping[str, Any]) -> None:
    """Let an instance have values that its row has got, as if they were assigned to it.

    A descriptor may refuse that, as those of state machines do, or change other attributes, as the
    one of an image sets the width. The values are the row's all the same.
    """
    plain = _plain_names(type(instance))
    if plain.issuperset(values):
        instance.__dict__.update(values)
        return
    before = instance.__dict__.copy()
    for name, value in values.items():
        if name in plain:
            instance.__dict__[name] = value
            continue
        try:
            setattr(instance, name, value)
        except Exception:
            instance.__dict__[name] = value
    for one in instance._meta.concrete_fields:
        name = one.attname
        if name not in values and name in before:
            instance.__dict__[name] = before[name]


@cache
def _plain_names(model: type[Model]) -> frozenset[str]:
    """The attributes of which nobody notices that they are assigned.

    A file is one: an image would be opened.
    """
    if model.__setattr__ is not Model.__setattr__:
        return frozenset()
    return frozenset(
        one.attname
        for one in model._meta.concrete_fields
        if type(descriptor := inspect.getattr_static(model, one.attname)) is DeferredAttribute
        or isinstance(descriptor, FileDescriptor)
    )


def key_of_instance(instance: Model) -> Any:
    """The primary key as a query returns it: it may have been set as text."""
    return key_in_table(instance, type(instance))


def key_in_table(instance: Model, model: type[Model]) -> Any:
    """The key of the instance's part in the table of ``model``, itself or a parent."""
    keys = model._meta.pk_fields
    if len(keys) == 1:
        return _converted(keys[0], getattr(instance, keys[0].attname))
    return tuple(_converted(one, getattr(instance, one.attname)) for one in keys)


def _converted(field: Field[Any, Any], value: Any) -> Any:
    try:
        return field.to_python(value)
    except ValidationError:
        # Of a class that the field makes of what a query returns, and takes from nowhere else.
        return value


def row_of(model: type[Model], key: Hashable) -> tuple[str, Any]:
    return _label(model), key


@cache
def _label(model: type[Model]) -> str:
    concrete: Any = model._meta.concrete_model
    return str(concrete._meta.label_lower)


def row_of_instance(instance: Model) -> tuple[str, Any]:
    """The row of an instance; of one that has no key yet, the instance itself."""
    key = key_of_instance(instance)
    if key is None or (isinstance(key, tuple) and None in key):
        key = ("unsaved", id(instance))
    return row_of(type(instance), key)


def is_new(change: Change) -> bool:
    return change.event.operation == INSERTED
