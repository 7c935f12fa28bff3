"""The recorded rows of a twice-executed write, with the receivers' assignments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.assigning import assign
from bulksafe.writer import parents
from bulksafe.writer.early import assigned_since
from bulksafe.writer.instances import as_before_the_insert, copied, copied_values

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.fingerprints import Found
    from bulksafe.writer.ledger import Ledger


@dataclass(eq=False)
class RecordedRow:
    """One change of a row.

    Attributes:
        found: the change as last recorded.
        instance: the receivers' instance.
        ledger: the ledger of the write.
        before: the values of the instance before the first receiver.
        earlier: the previous change of the same row.
        inherited: the attributes that differ from the statement's values without an assignment by
            this change's receivers: they were assigned by receivers of an earlier change, or shown
            to receivers.
        is_stored: whether the row was stored separately, with its receivers called.
    """

    found: Found
    instance: Model
    ledger: Ledger
    before: dict[str, Any] = field(default_factory=dict)
    earlier: RecordedRow | None = None
    inherited: set[str] = field(default_factory=set)
    is_stored: bool = False

    @property
    def change(self) -> InlineChange:
        return self.found.change

    def assigned(self) -> set[str]:
        """The attributes that receivers have assigned."""
        return assigned_since(self.instance, self.before)

    def inherit(self) -> None:
        """Inherit the receivers' assignments of the previous change of the same row."""
        earlier, self.earlier = self.earlier, None
        if earlier is None:
            return
        earlier.inherit()
        kept = self.change.table.all_names - self.change.changed
        attnames = {one.attname for one in self.change.table.fields if one.name in kept}
        for name in (earlier.assigned() | earlier.inherited) & attnames:
            value = earlier.instance.__dict__[name]
            assign(self.instance, {name: copied(value)})
            self.before[name] = copied(value)
            self.inherited.add(name)

    def carry_to(self, change: InlineChange, using: str, *, has_no_cascades: bool) -> None:
        """Pass the instance of the receivers before the write to those after it.

        Args:
            change: the final change.
            has_no_cascades: whether no rows of other models are deleted too.
        """
        change.take_in_hand(self.instance)
        change.done |= self.ledger.called_for(self.instance)
        change.announced |= self.change.announced
        change.given_fields = self.change.given_fields
        table = change.table
        if change.deleted or change.new_image is None:
            if has_no_cascades:
                parents.forget([self.instance], {}, gone=lineage(change.model))
            return
        assigned = self.assigned() | self.inherited
        if change.created or change is not self.change:
            # A new row had no key before the write.
            values = table.converted(change.new_image.values)
            pairs = zip(table.attnames, values, strict=True)
            different = {n: value for n, value in pairs if self.before.get(n, value) != value}
            assign(self.instance, {n: value for n, value in different.items() if n not in assigned})
        if change.created:
            self.instance._state.adding = False
            self.instance._state.db = using
        parents.forget([self.instance], {})


def recorded_row(found: Found, ledger: Ledger, *, is_stored: bool = False) -> RecordedRow:
    """A row with its instance, which has no key if it is new."""
    instance = found.change.instance
    if found.change.created and not is_stored:
        as_before_the_insert(instance)
    before = copied_values(instance, found.change.table.attnames)
    return RecordedRow(found, instance, ledger, before)
