"""The caller's objects as they were before a write, to restore them if it begins again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.writer.instances import copied_state

if TYPE_CHECKING:
    from django.db.models import Model


class Snapshot:
    """The attributes and the state of one object."""

    def __init__(self, instance: Model) -> None:
        self.instance = instance
        state = instance._state
        self.state = state.adding, state.db, dict(state.fields_cache)
        self.values = copied_state(instance)

    def restore(self) -> None:
        state = self.instance._state
        values = self.instance.__dict__
        values.clear()
        values.update(self.values, _state=state)
        state.adding, state.db, state.fields_cache = self.state
