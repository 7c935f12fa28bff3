"""All benchmarks, one after the other: what ``make bench`` runs.

Options that only some benchmarks have run only these. If several run, each writes its own file for
``--json`` or ``--markdown``: ``-listener`` in the name marks those of the listener, ``-inline``
those of in-transaction receivers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import __main__ as invariants
from benchmarks.inline import __main__ as inline
from benchmarks.listener import __main__ as listener

ALL = {
    "benchmarks": invariants,
    "benchmarks.listener": listener,
    "benchmarks.inline": inline,
}
_FILES = ("--json", "--markdown")


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"}.intersection(given):
        print(f"{__doc__}\n" + "\n".join(module.parser().format_help() for module in ALL.values()))
        return 0
    chosen = modules_for(given)
    if not chosen:
        return subprocess.call(
            [sys.executable, "-m", "benchmarks", *given]
        )  # it says what is wrong
    for name in chosen:
        own = renamed(given, name) if len(chosen) > 1 else given
        code = subprocess.call([sys.executable, "-m", name, *own])
        if code != 0:
            return code
    return 0


def modules_for(arguments: Sequence[str]) -> list[str]:
    """The benchmarks that know all of the options."""
    return [name for name, module in ALL.items() if _knows(module.parser(), arguments)]


def _knows(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> bool:
    known = {option for action in parser._actions for option in action.option_strings}
    given = {part.partition("=")[0] for part in arguments if part.startswith("-")}
    return given <= known


def renamed(arguments: Sequence[str], name: str) -> list[str]:
    """The options with the files that the benchmark ``name`` writes."""
    _, _, suffix = name.partition(".")
    if not suffix:
        return list(arguments)
    found = []
    for before, part in zip(["", *arguments], arguments, strict=False):
        option, has_value, value = part.partition("=")
        if option in _FILES and has_value:
            found.append(f"{option}={_beside(value, suffix)}")
        else:
            found.append(_beside(part, suffix) if before in _FILES else part)
    return found


def _beside(path: str, suffix: str) -> str:
    given = Path(path)
    return str(given.with_name(f"{given.stem}-{suffix}{given.suffix}"))


if __name__ == "__main__":
    sys.exit(main())
