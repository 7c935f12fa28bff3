"""What a contender does for the benchmark of a backlog."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.listener.models import OrderTable


@dataclass(frozen=True)
class Load:
    """The backlog: so many rows, each changed so often.

    Attributes:
        rows: how many.
        steps: the first change makes the row, the others update it.
    """

    rows: int
    steps: int

    @property
    def events(self) -> int:
        return self.rows * self.steps

    @classmethod
    def of(cls, events: int, steps: int = 5) -> Load:
        return cls(max(events // steps, 1), steps)

    def changes(self) -> Iterator[tuple[int, int]]:
        """(row, step) in the order in which the changes are made."""
        for step in range(1, self.steps + 1):
            for row in range(1, self.rows + 1):
                yield row, step


class Contender(ABC):
    """A way to deliver events, with a receiver that does nothing or makes one ORM write.

    Attributes:
        label: what it is called in the tables.
        note: the settings that it runs with.
        processes: the largest number of processes that it is measured with.
        is_rival: whether bulksafe is held against it.
        in_order: whether it promises the changes of a row in their order.
    """

    label: str
    note: str = ""
    most_processes: int = 1
    is_rival: bool = False
    in_order: bool = True

    def install(self) -> None:  # noqa: B027
        """Create what it needs in the database."""

    @abstractmethod
    def fill(self, load: Load, receiver: str) -> None:
        """Make the backlog, from nothing."""

    def prepare(self, receiver: str) -> None:  # noqa: B027
        """What is not timed, in the process that drains."""

    @abstractmethod
    def drain(self, receiver: str) -> None:
        """Deal with the whole backlog and return."""


def image(row: int, step: int) -> dict[str, object]:
    """The row as the argument of a job for a change."""
    return {
        "id": row,
        "number": f"SO-{row:08}",
        "status": "draft",
        "amount": "100.00",
        "step": step,
        "note": "",
        "placed_at": "2026-01-01T00:00:00+00:00",
    }


def new_orders(model: type[OrderTable], rows: int) -> list[OrderTable]:
    return [model(number=f"SO-{row:08}") for row in range(1, rows + 1)]
