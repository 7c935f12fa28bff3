"""One change of a row for in-transaction receivers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.exceptions import ValidationError
from django.utils.functional import cached_property

from bulksafe.caching import forever, per_model
from bulksafe.call_stack import NO_CALLS, Calls
from bulksafe.dispatch.changes import Change
from bulksafe.outbox.events import INSERTED

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from django.db.models import Field, Model

    from bulksafe.call_stack import Row
    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.images import Image, Table


@dataclass
class InlineChange(Change):
    """A change that was taken from the buffer.

    Attributes:
        met: the receivers whose conditions it meets.
        done: the receivers that have been called for it already.
        given_fields: ``update_fields``, if the write gives it.
        given_origin: the origin of a deletion: an instance or a queryset.
        calls: the receiver calls in which the write was made.
    """

    met: frozenset[Receiver] = frozenset()
    done: set[Receiver] = field(default_factory=set)
    given_fields: frozenset[str] | None = None
    given_origin: Any = None
    calls: Calls = NO_CALLS

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
    def row(self) -> Row:
        """Identifies a row, including rows of instances in hand."""
        return row_of(self.model, self.key(old=True))

    @cached_property
    def new_row(self) -> Row:
        """The same after the change, which may have changed the key."""
        if self.old_image is None or self.new_image is None:
            return self.row
        return row_of(self.model, self.key())

    def key(self, *, old: bool = False) -> Hashable:
        """The primary key as a Python value, after the change if possible, else before it."""
        image = (self.old_image if old else self.new_image) or self.new_image or self.old_image
        assert image is not None  # noqa: S101
        found: Hashable = image.table.key(image.values)
        return found

    @cached_property
    def context(self) -> Mapping[str, Any]:
        return self.event.context

    @property
    def update_fields(self) -> frozenset[str] | None:
        if self.created:
            return None
        return self.changed if self.given_fields is None else self.given_fields

    @property
    def origin(self) -> Any:
        return self.instance if self.given_origin is None else self.given_origin

    def begin_with(self, earlier: InlineChange) -> None:
        """Extend the change back to the start of an earlier one."""
        if earlier is not self:
            operation = INSERTED if earlier.created else self.event.operation
            self.event = replace(self.event, operation=operation, first=earlier.event.before)
            self.old_image = earlier.old_image
            self.met |= earlier.met
            self._instances.pop("old", None)
            self._forget()

    def end_with(self, later: InlineChange) -> None:
        """Extend the change to the end of a later one."""
        self.new_image = later.new_image
        self.met |= later.met
        self._forget()

    def replace_images(self, old: Image, new: Image | None) -> None:
        """Replace the images by a different state of the row."""
        self.old_image, self.new_image = old, new
        self.forget_instances()
        self._forget()

    def _forget(self) -> None:
        for name in ("changed", "row", "new_row"):
            self.__dict__.pop(name, None)

    def take_in_hand(self, instance: Model) -> None:
        """Pass this instance to receivers."""
        self._instances["old" if self.deleted else "new"] = instance

    @property
    def is_in_hand(self) -> bool:
        return ("old" if self.deleted else "new") in self._instances


def key_of_instance(instance: Model) -> Any:
    """The primary key as returned by a query: it may have been set as text."""
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
        # A value of a class that the field creates only from query results.
        return value


def row_of(model: type[Model], key: Hashable) -> Row:
    try:
        hash(key)
    except TypeError:
        # A field may create values of a class without a hash, or lists.
        values = key if isinstance(key, tuple) else (key,)
        key = tuple(map(repr, values))
    return _label(model), key


@per_model(forever)
def _label(model: type[Model]) -> str:
    concrete: Any = model._meta.concrete_model
    return str(concrete._meta.label_lower)


class Unsaved(NamedTuple):
    """Stands for the key of an object without one."""

    object_id: int

    def __str__(self) -> str:
        return "without a key"


def row_of_instance(instance: Model) -> Row:
    """The row of an instance; the instance itself if it has no key yet."""
    key = key_of_instance(instance)
    if key is None or (isinstance(key, tuple) and None in key):
        key = Unsaved(id(instance))
    return row_of(type(instance), key)
