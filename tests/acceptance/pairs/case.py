"""A case: its receivers, its rows and the expected outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

Side = SimpleNamespace
Row = dict[str, Any]

CREATE, UPDATE, DELETE = "create", "update", "delete"


class TransitionNotAllowed(Exception):  # noqa: N818
    """What receivers raise that is neither Django's nor the database's."""


@dataclass(frozen=True)
class Case:
    """One kind of receiver.

    Each function gets a side: the models by name, ``log(text)`` that stores a line, and ``calls``,
    a list for effects outside the database.

    Attributes:
        name: what the receivers do.
        declare: the receivers as ``(signal, model, function)``, with options as a fourth item.
        letter: under which docs/per-row.md lists it.
        model: the name of the model whose rows are written.
        setup: stores the rows that must exist before, without receivers.
        row: the values of the nth new row.
        key: the nth key, where the path gives keys: descending, so that rows are not in key order.
        values: what ``update()`` sets, expressions included.
        new: the literal values that the nth row gets where each row has its own.
        prepare: alters both tables, or puts rules on them.
        kinds: the kinds of writes that are tried.
        only: the titles of the only paths that are tried, if not all.
        sizes: how many rows are written.
        expected: the ``calls`` of the critical side, where Django itself would send nothing:
            gets the path and the number of rows.
    """

    name: str
    declare: Callable[[Side], list[tuple[Any, ...]]]
    letter: str = ""
    model: str = "Item"
    setup: Callable[[Side], object] = lambda m: None
    row: Callable[[Side, int], Row] = lambda m, n: {"name": f"row {n}"}
    key: Callable[[int], Any] = lambda n: 900_000 - n
    values: Row = field(default_factory=lambda: {"price": 5})
    new: Callable[[int], Row] = lambda n: {"price": 10 + n}
    prepare: Callable[[Side], object] = lambda m: None
    kinds: tuple[str, ...] = (CREATE, UPDATE, DELETE)
    only: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2, 7, 100)
    expected: Callable[[str, int], Iterable[Any]] | None = None

    def __str__(self) -> str:
        return f"{self.letter}. {self.name}" if self.letter else self.name


CASES: list[Case] = []


def case(name: str, **options: Any) -> Callable[[Any], Any]:
    """Register the decorated function, which declares the receivers of one side, as a case."""

    def add(declare: Any) -> Any:
        CASES.append(Case(name, declare, **options))
        return declare

    return add


def practice(name: str, **options: Any) -> Callable[[Any], Any]:
    """A case as public projects have it.

    One size keeps the suite fast: an even one writes in autocommit, an odd one in a block.
    """
    return case(name, **{"sizes": (6,), **options})
