"""Both benchmarks, one after the other: what ``make bench`` runs.

Options that only one of them has run that one alone. A file of ``--json`` or ``--markdown`` becomes
two, the listener's with ``-listener`` in its name.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import __main__ as invariants
from benchmarks.listener import __main__ as listener

BOTH = {"benchmarks": invariants, "benchmarks.listener": listener}
_FILES = ("--json", "--markdown")


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"}.intersection(given):
        print(f"{__doc__}\n" + "\n".join(module.parser().format_help() for module in BOTH.values()))
        return 0
    chosen = modules_for(given)
    if not chosen:
        return subprocess.call(
            [sys.executable, "-m", "benchmarks", *given]
        )  # it says what is wrong
    for name in chosen:
        own = given if chosen == ["benchmarks.listener"] else renamed(given, name)
        code = subprocess.call([sys.executable, "-m", name, *own])
        if code != 0:
            return code
    return 0


def modules_for(arguments: Sequence[str]) -> list[str]:
    """The benchmarks that know all of the options."""
    return [name for name, module in BOTH.items() if _knows(module.parser(), arguments)]


def _knows(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> bool:
    known = {option for action in parser._actions for option in action.option_strings}
    given = {part.partition("=")[0] for part in arguments if part.startswith("-")}
    return given <= known


def renamed(arguments: Sequence[str], name: str) -> list[str]:
    """The options with the files that the benchmark ``name`` writes."""
    if name == "benchmarks":
        return list(arguments)
    found = []
    for before, part in zip(["", *arguments], arguments, strict=False):
        option, has_value, value = part.partition("=")
        if option in _FILES and has_value:
            found.append(f"{option}={_beside(value)}")
        else:
            found.append(_beside(part) if before in _FILES else part)
    return found


def _beside(path: str) -> str:
    given = Path(path)
    return str(given.with_name(f"{given.stem}-listener{given.suffix}"))


if __name__ == "__main__":
    sys.exit(main())
