"""Amends wrong images of rows that are stored in several tables."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bulksafe.dispatch.images import Image
from bulksafe.dispatch.part_history import differences, members, parts_after
from bulksafe.outbox.events import DELETED, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from bulksafe.dispatch.images import Images
    from bulksafe.dispatch.parts import Part, Parts, State, States
    from bulksafe.outbox.cursors import Cursor
    from bulksafe.outbox.store import Store

    #: The source and the key of a row. Events for in-transaction receivers that did not run there
    #: form a separate sequence.
    _Row: TypeAlias = tuple[int, str, bool]
    #: Reads the images of events of one or more tables.
    _Read: TypeAlias = Callable[[Sequence[Event], Sequence[str]], Images]


@dataclass(frozen=True)
class Amendment:
    """Finds the differences between the images of events and the real rows.

    Attributes:
        store: the outbox.
        parts: the tables of each source, by its oid.
        read: reads images.
    """

    store: Store
    parts: Callable[[Event], Parts]
    read: _Read

    def amended(
        self, events: Sequence[Event], cursors: Sequence[Cursor]
    ) -> tuple[dict[int, Event], Images]:
        """The amended events, by number; events with correct images are left out.

        Args:
            events: of rows in several tables; the events of each row in delivery order.
            cursors: their positions after these events; empty if no other events are left.

        Returns:
            the amended events, and the images of all events as they were captured.
        """
        images = self.read([m for event in events for m in members(event)], ("old", "new"))
        rows: dict[_Row, list[Event]] = defaultdict(list)
        for event in events:
            rows[_row(event)].append(event)
        # In this order: a change after the stored row was read leaves an event before the events
        # are searched.
        stored = self._stored([listed[-1] for listed in rows.values()], images)
        rest = self._rest([listed[-1] for listed in rows.values()], cursors)
        found: dict[int, dict[str, list[tuple[Part, State]]]] = {}
        for row, listed in rows.items():
            parts = self.parts(listed[-1])
            after = parts_after(parts, *rest.get(row, ([], {})), stored.get(listed[-1].seq, {}))
            found |= differences(parts, listed, images, after)
        return self._with_texts([event for event in events if event.seq in found], found), images

    def _stored(self, events: Sequence[Event], images: Images) -> dict[int, States]:
        by_source: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            if event.operation != DELETED and isinstance(images["new"].get(event.seq), Image):
                by_source[event.source].append(event)
        return {
            seq: states
            for group in by_source.values()
            for seq, states in self.parts(group[0]).stored(group).items()
        }

    def _rest(
        self, events: Sequence[Event], cursors: Sequence[Cursor]
    ) -> dict[_Row, tuple[list[Event], Images]]:
        rest = self.store.fetch_rest(cursors, events) if cursors else []
        images = self.read(rest, ("old", "new"))
        found: dict[_Row, tuple[list[Event], Images]] = {}
        for event in rest:
            found.setdefault(_row(event), ([], images))[0].append(event)
        return found

    def _with_texts(
        self,
        events: Sequence[Event],
        found: Mapping[int, Mapping[str, Sequence[tuple[Part, State]]]],
    ) -> dict[int, Event]:
        wanted: dict[Part, dict[tuple[int, str], Event]] = defaultdict(dict)
        for sides in found.values():
            for part, state in (pair for listed in sides.values() for pair in listed):
                if state.event is not None:
                    wanted[part][state.event.seq, state.side] = state.event
        texts = {part: self._texts(part, images) for part, images in wanted.items()}

        def text(part: Part, state: State) -> str:
            if state.event is None:
                return state.text
            return texts[part][state.event.seq, state.side]

        return {
            event.seq: replace(
                event,
                amended={
                    side: _joined(text(part, state) for part, state in listed)
                    for side, listed in found[event.seq].items()
                },
            )
            for event in events
        }

    def _texts(
        self, part: Part, images: Mapping[tuple[int, str], Event]
    ) -> dict[tuple[int, str], str]:
        """The part of some images as JSON, by number and side."""
        rows = self.store.rows(
            "parts_of_images",
            {
                "columns": [one.column for one in part._meta.local_concrete_fields],
                "slots": [event.slot for event in images.values()],
                "buckets": [event.bucket for event in images.values()],
                "seqs": [event.seq for event in images.values()],
                "sides": [side for _, side in images],
            },
        )
        return {(seq, side): text for seq, side, text in rows}


def _joined(texts: Iterable[str]) -> str:
    """One JSON object from several with distinct keys."""
    return f"{{{', '.join(text.strip()[1:-1] for text in texts)}}}"


def _row(event: Event) -> _Row:
    return event.source, event.key, event.is_handed_over
