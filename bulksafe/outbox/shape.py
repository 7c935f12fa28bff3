"""Compares bulksafe's own objects with the objects that its migrations create.

A role with ``CREATE`` in the schema may have created one of them first, with its own triggers,
which would run with the rights of the role that captures changes.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from django.core.management import CommandError

from bulksafe.outbox import own
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: The fix for an object that differs from bulksafe's.
FIX = (
    "Find out who created it and why. Drop it if it is not bulksafe's; if one of its own tables is "
    "damaged, run “manage.py migrate bulksafe zero” and “manage.py migrate” again, or restore it."
)


@cache
def expected() -> frozenset[tuple[str, str]]:
    """Every part of our objects as (object, part) pairs, from ``own_objects.txt``."""
    path = resources.files("bulksafe") / "outbox" / "own_objects.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(": ") for line in lines if not line.startswith("#"))
    return frozenset((name, part) for name, _, part in pairs)


def found(using: str, home: str, names: Collection[str] = own.ALL) -> frozenset[tuple[str, str]]:
    """The same for a database."""
    rows = Store(using).rows("shape", {"home": home, "names": list(names)})
    return frozenset((name, part) for name, part in rows if part is not None)


def differences(using: str, home: str, names: Collection[str] = own.ALL) -> Iterator[str]:
    """Unexpected and missing parts."""
    wanted = frozenset(pair for pair in expected() if pair[0] in names)
    present = found(using, home, names)
    for name, part in sorted(present - wanted):
        yield f"{home}.{name} has a part that bulksafe did not create: {part}."
    for name, part in sorted(wanted - present):
        yield f"{home}.{name} lacks a part that bulksafe created: {part}."


def strangers(using: str, home: str, tables: Collection[int] = ()) -> Iterator[str]:
    """Our objects that belong to an untrusted role.

    Args:
        tables: the oids of the tables whose changes are captured: their owners are trusted.
    """
    parameters = {"home": home, "names": list(own.ALL), "tables": list(tables)}
    for described, owner, is_trusted in Store(using).rows("owners", parameters):
        if not is_trusted:
            yield f"{described} in the schema {home} belongs to {owner}."


def shadows(using: str, home: str) -> Iterator[str]:
    """Objects that shadow ours on the search_path."""
    for described, owner in Store(using).rows("shadows", {"home": home, "names": list(own.ALL)}):
        yield (
            f"{described} comes before bulksafe's own in the schema {home} on the search_path, and "
            f"belongs to {owner}."
        )


def refuse_foreign(using: str, names: Collection[str]) -> None:
    """Refuse to continue with objects that differ from those of the migration.

    Raises:
        CommandError: some objects differ.
    """
    home = own.home(using)
    if home is None:
        return
    wrong = [*differences(using, home, names), *strangers(using, home), *shadows(using, home)]
    if wrong:
        raise CommandError(
            f"The database {using!r} has objects with names of bulksafe's own that it did not "
            f"create: {' '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''} {FIX}"
        )
