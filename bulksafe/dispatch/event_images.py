"""The images of events of several tables, read table by table."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from bulksafe.dispatch.amending import Amendment
from bulksafe.dispatch.images import Image, Images, Table
from bulksafe.dispatch.parts import Parts
from bulksafe.outbox.events import DELETED, INSERTED, Event
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bulksafe.dispatch.routes import Routes
    from bulksafe.outbox.cursors import Cursor

#: A method of ``Table``.
ImageReader: TypeAlias = "Callable[[Table, Sequence[Event], Sequence[str]], Images]"


class EventImages:
    """Reads images.

    Args:
        routes: the models of event tables.
        read: reads the images of events of one table.
    """

    def __init__(self, routes: Routes, read: ImageReader) -> None:
        self._routes = routes
        self._read_images = read
        self._tables: dict[int, Table] = {}
        self._parts: dict[int, Parts] = {}

    def table(self, event: Event) -> Table:
        if event.source not in self._tables:
            model = self._routes.models[event.source]
            self._tables[event.source] = Table(model, self._routes.using)
        return self._tables[event.source]

    def _parts_of(self, event: Event) -> Parts:
        if event.source not in self._parts:
            self._parts[event.source] = Parts(self.table(event))
        return self._parts[event.source]

    def own_parts(
        self, members: Sequence[Event], values: Mapping[int, Any]
    ) -> dict[int, tuple[Any, ...] | None]:
        """The values of each event's own part of the row, which are certain."""
        parts = self._parts_of(members[0])
        return {member.seq: parts.own_values(member, values[member.seq]) for member in members}

    def read(self, events: Sequence[Event], sides: Sequence[str]) -> Images:
        by_source: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            by_source[event.source].append(event)
        found: Images = {side: {} for side in sides}
        for group in by_source.values():
            for side, images in self._read_images(self.table(group[0]), group, sides).items():
                found[side] |= images
        return found

    def values(self, events: Sequence[Event], side: str) -> dict[int, Any]:
        absent = INSERTED if side == "old" else DELETED
        having = [event for event in events if event.operation != absent]
        found = self.read(having, [side])[side]
        values: dict[int, Any] = dict.fromkeys(event.seq for event in events)
        values |= {
            seq: image.values if isinstance(image, Image) else None for seq, image in found.items()
        }
        return values

    def amended(
        self, events: Sequence[Event], cursors: Sequence[Cursor]
    ) -> tuple[dict[int, Event], Images]:
        """The events with incomplete images of rows in several tables, amended, by number.

        Returns:
            the amended events, and the images that were read for it.
        """
        amendment = Amendment(Store(self._routes.using), self._parts_of, self.read)
        return amendment.amended(events, cursors)
