"""Turns the events of a batch into deliveries: reads images and finds receivers."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, transaction

from bulksafe.dispatch.changes import Change
from bulksafe.dispatch.event_images import EventImages, ImageReader
from bulksafe.dispatch.images import Image, Images, Table, Unreadable
from bulksafe.dispatch.ordering import Delivery
from bulksafe.dispatch.recursion import Write, endless, is_called
from bulksafe.outbox import event_order
from bulksafe.outbox.contexts import Unread, UnreadableContext
from bulksafe.outbox.events import DELETED, HANDED_OVER, INSERTED, Event
from bulksafe.sqlstates import is_about_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.routes import Route, Routes
    from bulksafe.outbox.cursors import Cursor

logger = logging.getLogger("bulksafe")


_NO_IMAGES: Images = {"old": {}, "new": {}}


class Batch:
    """Reads the images of events and finds their receivers.

    Args:
        routes: the receivers of events.
        prefix: the prefix of event ids in this database.
        read: reads the images of events of one table.
    """

    def __init__(self, routes: Routes, prefix: str, read: ImageReader = Table.read) -> None:
        self.routes = routes
        self.prefix = prefix
        self._images = EventImages(routes, read)
        self._strange: set[int] = set()

    def ordered(self, events: Sequence[Event]) -> list[Event]:
        """The events, bucket by bucket; the events of each row in the order of its changes."""
        if not any(map(event_order.is_shared, events)):
            return list(events)
        images: dict[str, dict[int, Any]] | None = None

        def chain(members: list[Event]) -> list[Event]:
            nonlocal images
            if images is None:
                nested = [e for e in events if self.is_known(e)]
                images = {side: self._images.values(nested, side) for side in ("old", "new")}
            if not all(self.is_known(member) for member in members):
                return members
            if self._has_parents(members[0]):
                own = {side: self._images.own_parts(members, images[side]) for side in images}
                return event_order.chained_by_part(members, own["old"], own["new"])
            return event_order.chained(members, images["old"], images["new"])

        return [
            event
            for _, group in event_order.by_bucket(events)
            for event in event_order.in_order(group, chain)
        ]

    def deliveries(self, events: Iterable[Event], cursors: Sequence[Cursor] = ()) -> list[Delivery]:
        """Every event with each of its receivers.

        Args:
            events: the events of each row in the order of its changes.
            cursors: their positions after these events; empty if no other events are left.
        """
        events, images = self._amended(list(events), cursors)
        routed = [(event, self._met(event)) for event in events]
        routed = self._with_new_conditions(routed)
        routed = [(event, found) for event, found in routed if found]
        changes = self._changes([event for event, _ in routed], images)
        due = []
        for event, found in routed:
            change, error = changes[event.number]
            write = Write.of(change)
            due += [
                Delivery(route.receiver, change, error or endless(route.receiver, write))
                for route in found
                if is_called(route.receiver, write)
            ]
        return due

    def wanted(self, event: Event) -> list[Receiver]:
        """The receivers of an event, by the conditions that it met when it was captured."""
        return [route.receiver for route in self._met(event)]

    def unknown_receiver(self, event: Event) -> str | None:
        """The target receiver of a replayed event, if it belongs here and this code lacks it.

        The event must be parked under that name: no route leads to the receiver, so the cursor
        would pass the event and lose it.
        """
        replay = event.replay
        return replay.receiver if replay and self.routes.lacks(event, replay) else None

    def parked(self, events: Sequence[tuple[Event, Receiver]]) -> list[Delivery]:
        """Parked events with their receivers."""
        changes = self._changes([event for event, _ in events], _NO_IMAGES)
        found = []
        for event, receiver in events:
            # One event may be parked for several receivers, under an id for each.
            change, error = changes[event.number]
            own = replace(change, event=event, _instances={})
            found.append(Delivery(receiver, own, error or endless(receiver, Write.of(own))))
        return found

    def is_known(self, event: Event) -> bool:
        """Whether this code has receivers for the event's table."""
        if event.source in self.routes.models:
            return True
        if event.source not in self._strange:
            self._strange.add(event.source)
            logger.warning(
                "events are captured for a table (oid %s) that has no receivers in this code; "
                "they stay for a listener with such receivers: start one with the current code, or "
                "run "
                "makemigrations and migrate",
                event.source,
            )
        return False

    # Conditions.

    def _met(self, event: Event) -> list[Route]:
        if not self.is_known(event):
            return []
        if event.replay is not None:
            # An unknown receiver has no route, and its event was parked earlier.
            return self.routes.replayed(event, event.replay)
        routes = self.routes.of(event)
        met = set(event.matched or ()) - {HANDED_OVER}
        if not met:
            return list(routes)
        return [
            route for route in routes if route.condition_id is None or route.condition_id in met
        ]

    def _with_new_conditions(
        self, routed: list[tuple[Event, list[Route]]]
    ) -> list[tuple[Event, list[Route]]]:
        """Evaluate conditions that the trigger did not evaluate.

        The trigger was created with different conditions: the code has changed since.
        """
        asked: dict[tuple[int, str], list[Event]] = defaultdict(list)
        for event, _ in routed:
            if self.is_known(event) and self._has_new_conditions(event):
                asked[event.source, event.operation].append(event)
        if not asked:
            return routed
        met = {seq: found for group in asked.values() for seq, found in self._ask(group).items()}
        return [(event, met.get(event.seq, found)) for event, found in routed]

    def _has_new_conditions(self, event: Event) -> bool:
        if event.replay is not None:
            return False
        asked = self.routes.asked(event)
        return asked is not None and asked not in (event.matched or ())

    def _ask(self, events: list[Event]) -> dict[int, list[Route]]:
        try:
            with transaction.atomic(using=self.routes.using):
                return {event.seq: self._answers(event) for event in events}
        except DatabaseError as error:
            if not is_about_values(error):
                raise
            if len(events) == 1:
                # Undecidable. The event is not lost: its receivers fail on the unreadable image.
                return {events[0].seq: list(self.routes.of(events[0]))}
        found: dict[int, list[Route]] = {}
        for event in events:
            found |= self._ask([event])
        return found

    def _answers(self, event: Event) -> list[Route]:
        routes = self.routes.of(event)
        conditions = [route.condition or "true" for route in routes]
        met = self._images.table(event).meets(event, conditions)
        return [route for route, is_met in zip(routes, met, strict=True) if is_met]

    # Changes.

    def _amended(
        self, events: list[Event], cursors: Sequence[Cursor]
    ) -> tuple[list[Event], Images]:
        """The events, with complete images of rows in several tables.

        Returns:
            the events, and the images that were read for it.
        """
        parted = [e for e in events if e.part is not None and self._has_parents(e)]
        if not parted:
            return events, _NO_IMAGES
        found, images = self._images.amended(parted, cursors)
        return [found.get(event.seq, event) for event in events], images

    def _has_parents(self, event: Event) -> bool:
        return self.is_known(event) and self._images.table(event).has_parents

    def _changes(
        self, events: Sequence[Event], known: Images
    ) -> dict[int, tuple[Change, Exception | None]]:
        sides = []
        if any(event.operation != INSERTED for event in events):
            sides.append("old")
        if any(event.operation != DELETED for event in events):
            sides.append("new")
        firsts = [e.first for e in events if e.first is not None and not e.amended]
        wanted = [e for e in (*events, *firsts) if e.amended or e.number not in known["new"]]
        found = self._images.read(wanted, sides)
        images = {side: {**known[side], **found.get(side, {})} for side in ("old", "new")}
        return {event.number: self._change(event, images) for event in events}

    def _change(self, event: Event, images: Images) -> tuple[Change, Exception | None]:
        first = event if event.amended else event.before
        before = images["old"].get(first.number) if event.operation != INSERTED else None
        after = images["new"].get(event.number) if event.operation != DELETED else None
        wrong: list[Exception]
        wrong = [image for image in (before, after) if isinstance(image, Unreadable)]
        change = Change(
            event,
            self.routes.models[event.source],
            before if isinstance(before, Image) else None,
            after if isinstance(after, Image) else None,
            using=self.routes.using,
            event_id=f"{self.prefix}-{event.seq}",
        )
        if isinstance(event.context, Unread):
            wrong = [
                UnreadableContext(f"The event's context cannot be read: {event.context.reason}.")
            ]
        return change, wrong[0] if wrong else None
