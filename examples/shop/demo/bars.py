"""The bars that show how far the demo is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


def progress(console: Console) -> Progress:
    """A bar with a description, numbers and the time; one without a total moves all the same."""
    return Progress(
        TextColumn("{task.description:<27}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


class Stages:
    """One bar for several stages. During a stage it moves with the share that is done.

    Args:
        bar: where the bar is; None for none.
        total: how many stages there are.
    """

    def __init__(self, bar: Progress | None = None, total: int = 0) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=total) if bar else TaskID(0)
        self._done = -1

    def begin(self, description: str) -> None:
        """End the stage before, and begin the one with this description."""
        self._done += 1
        self._show(0.0, description)

    def share(self, part: float) -> None:
        """Say which part of the present stage is done, from 0 to 1."""
        self._show(part)

    def end(self, description: str) -> None:
        self._done += 1
        self._show(0.0, description)

    def _show(self, part: float, description: str | None = None) -> None:
        if self._bar:
            self._bar.update(self._task, completed=self._done + part, description=description)


@contextmanager
def stages(console: Console, total: int, result: str) -> Iterator[Stages]:
    """A bar for ``total`` stages. ``result`` describes it once they have ended."""
    with progress(console) as bar:
        found = Stages(bar, total)
        yield found
        found.end(result)
