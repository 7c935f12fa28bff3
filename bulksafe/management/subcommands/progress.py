"""A line on the terminal that shows how far a long task is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

#: Seconds between two updates of the line.
_PAUSE = 0.1

_CLEAR = "\r\x1b[K"


class ProgressLine:
    """One line that is overwritten; nothing if the output is not read on a terminal."""

    def __init__(self, command: BaseCommand, *, is_wanted: bool = True) -> None:
        self.stream = command.stderr
        self.is_shown = is_wanted and command.stdout.isatty() and command.stderr.isatty()
        self.started = self.updated = time.monotonic()

    def show(self, table: str, rows: int, estimate: int | None, more: str = "") -> None:
        """Update the line, unless it was updated just before.

        Args:
            estimate: of all rows of the table; None if it is unknown.
            more: further text.
        """
        now = time.monotonic()
        if not self.is_shown or now - self.updated < _PAUSE:
            return
        self.updated = now
        self._write(f"{_CLEAR}{progress_text(table, rows, estimate, now - self.started)}{more}")

    def restart(self) -> None:
        """Measure the rate from now on."""
        self.started = time.monotonic()

    def clear(self) -> None:
        if self.is_shown:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        self.stream.write(text, style_func=str, ending="")
        self.stream.flush()


def progress_text(table: str, rows: int, estimate: int | None, seconds: float) -> str:
    """``"shop_order: 120,000 of about 1,000,000 rows, 40,000 a second"``."""
    of_all = f" of about {estimate:,}" if estimate and estimate >= rows else ""
    rate = f", {rows / seconds:,.0f} a second" if seconds >= _PAUSE else ""
    return f"{table}: {rows:,}{of_all} rows{rate}"
