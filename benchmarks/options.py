"""The shared options of the benchmarks, and the run of a benchmark in sections."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeVar

from rich.console import Console

T = TypeVar("T")


def positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def writable(text: str) -> Path:
    """Check it now, not after a quarter of an hour."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent}")
    return path


def sections_of(titles: Mapping[str, str]) -> Callable[[str], list[str]]:
    """The type of ``--only``: letters of sections with commas between them."""

    def sections(text: str) -> list[str]:
        found = sorted({part.strip() for part in text.split(",") if part.strip()})
        unknown = [part for part in found if part not in titles]
        if unknown or not found:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown) or 'nothing'} is not a section: use {', '.join(titles)}"
            )
        return found

    return sections


def sectioned_parser(
    prog: str, description: str, epilog: str, titles: Mapping[str, str], rounds: str
) -> argparse.ArgumentParser:
    """The options of a benchmark in sections.

    Args:
        titles: of the sections, by their letters.
        rounds: the help of ``--rounds``.
    """
    listed = "\n".join(f"  {title}" for title in titles.values())
    found = argparse.ArgumentParser(
        prog=prog,
        description=f"{description}\n\nsections:\n{listed}",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--quick", action="store_true", help="small sizes, one round")
    found.add_argument(
        "--only",
        type=sections_of(titles),
        default=list(titles),
        metavar="a,b",
        help="these sections (default: all)",
    )
    found.add_argument("--rounds", type=positive, metavar="N", help=rounds)
    add_files(found, "figures")
    add_server(found)
    return found


def add_files(parser: argparse.ArgumentParser, figures: str) -> None:
    parser.add_argument(
        "--json", type=writable, metavar="FILE", help=f"also write all {figures} there"
    )
    parser.add_argument(
        "--markdown", type=writable, metavar="FILE", help="also write the tables there"
    )


def add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--postgres",
        choices=["embedded", "system"],
        default="embedded",
        help="which server to start, unless DATABASE_URL names one (default: embedded)",
    )


class Section(Protocol):
    """One section of a benchmark."""

    section: str

    def round(self, number: int, say: Callable[[str], None]) -> None:
        """Measure everything once.

        Args:
            number: of the round, from 0.
            say: called with the current measurement.
        """


def measure(section: Section, title: str, rounds: int, console: Console) -> None:
    """Measure a section round by round."""
    for number in range(rounds):
        with console.status("") as status:
            start = monotonic()
            section.round(number, status.update)
        console.print(
            f"{title}: round {number + 1} of {rounds} took {monotonic() - start:.1f} s",
            style="dim",
            highlight=False,
        )


def turned(listed: Sequence[T], by: int) -> list[T]:
    """Rotate the order, so that other load on the machine affects all alike."""
    by %= len(listed)
    return [*listed[by:], *listed[:by]]
