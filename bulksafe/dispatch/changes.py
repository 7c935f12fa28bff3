"""One change of a row, as receivers see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from django.utils.functional import cached_property

from bulksafe.call_stack import NO_CALLS, Calls
from bulksafe.contexts import WRITTEN_BY
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model
    from typing_extensions import TypeVar

    from bulksafe.call_stack import Row
    from bulksafe.dispatch.images import Image
    from bulksafe.outbox.events import Event

    _Model = TypeVar("_Model", bound=Model, default=Model)
else:
    from typing import TypeVar

    _Model = TypeVar("_Model")


@dataclass
class Change(Generic[_Model]):
    """One change of a row: each of the ``events`` that a receiver with ``batch=True`` gets.

    In annotations, its parameter is the model: ``Sequence[bulksafe.Change[Order]]``.

    The receivers share the instances, as with Django's signals; ``forget_instances`` drops them
    after a rollback.

    Attributes:
        event: the captured event.
        model: the concrete model of the row.
        old_image, new_image: the row before and after.
        using: the database.
        event_id: permanent id of the event, also for services outside the database.
    """

    event: Event
    model: type[_Model]
    old_image: Image | None
    new_image: Image | None
    using: str
    event_id: str
    _instances: dict[str, _Model | None] = field(default_factory=dict, repr=False)

    @property
    def created(self) -> bool:
        return self.event.operation == INSERTED

    @property
    def deleted(self) -> bool:
        return self.event.operation == DELETED

    @property
    def row(self) -> Row:
        """Identifies the row, with the key as text."""
        return self.model._meta.label_lower, self.event.key

    @cached_property
    def context(self) -> Mapping[str, Any]:
        """The ``bulksafe.context`` of the write."""
        return {key: value for key, value in self._event_context.items() if key != WRITTEN_BY}

    @property
    def calls(self) -> Calls:
        """The receiver calls in which the write was made."""
        names = self._event_context.get(WRITTEN_BY)
        if not isinstance(names, list | tuple):
            return NO_CALLS
        return Calls.of_names(tuple(map(str, names)))

    @property
    def _event_context(self) -> Mapping[str, Any]:
        """The event's context. SQL may have set any JSON; ignores values that are not objects."""
        found: object = self.event.context
        return found if isinstance(found, dict) else {}

    @property
    def is_noop(self) -> bool:
        """Whether it is certainly an update that changes no value: both images are readable."""
        if self.created or self.deleted or self.old_image is None or self.new_image is None:
            return False
        return not self.changed

    @property
    def instance(self) -> _Model:
        """The row after the change; for a deletion, the row before it.

        For an update, it is the old row with the new values assigned, so that field trackers see
        the change.
        """
        found: Any = self._instance("old" if self.deleted else "new")
        return found  # type: ignore[no-any-return]

    @property
    def old(self) -> _Model | None:
        """The row before the change."""
        return self._instance("old")

    @cached_property
    def changed(self) -> frozenset[str]:
        """The names of the fields whose values differ; all of them for a new row."""
        if self.deleted or self.new_image is None:
            return frozenset()
        table = self.new_image.table
        if self.old_image is None:
            return table.all_names
        pairs = zip(table.names, self.old_image.values, self.new_image.values, strict=True)
        # A hot path: compares precisely only the values that seem to differ.
        return frozenset([name for name, old, new in pairs if old != new and _differ(old, new)])

    def stored(self, attname: str) -> object:
        """A column as the database returned it. Unlike ``instance``, runs no code of the model.

        A model whose ``__init__`` hangs must not do so before its call has begun.
        """
        image = self.old_image if self.deleted else self.new_image
        return image and image.values[image.table.attnames.index(attname)]

    @property
    def update_fields(self) -> frozenset[str] | None:
        """What Django's argument of this name would be: None for a new row."""
        return None if self.created else self.changed

    @property
    def origin(self) -> _Model:
        """The instance or queryset that was deleted."""
        return self.instance

    def forget_instances(self) -> None:
        self._instances.clear()

    def _instance(self, side: str) -> _Model | None:
        if side not in self._instances:
            self._instances[side] = self._made(side)
        return self._instances[side]

    def _made(self, side: str) -> _Model | None:
        image = self.old_image if side == "old" else self.new_image
        found: Any = None
        if side == "new" and self.event.operation == UPDATED and image and self.old_image:
            found = image.instance_after(self.old_image)
        elif image:
            found = image.instance()
        return found  # type: ignore[no-any-return]


def _differ(one: object, other: object) -> bool:
    """Whether two unequal values really differ: NaN equals NaN here, at any depth."""
    return repr(one) != repr(other)
