"""The ``BULKSAFE`` setting: one dict, typed, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from django.conf import settings


@dataclass(frozen=True)
class Settings:
    """The values of ``BULKSAFE``.

    Attributes:
        SEARCH_PATH: schemas that invariants may use functions, operators, collations or types of,
            after ``pg_catalog`` and the schemas of the table's own column types. Empty by default:
            whoever can create objects in a schema that is listed here can change what an
            expression means at the next ``migrate``.
    """

    SEARCH_PATH: tuple[str, ...] = ()


def problems(configured: object) -> list[tuple[str, str]]:
    """Return what is wrong with a ``BULKSAFE`` value, as (fact, fix) pairs."""
    if not isinstance(configured, Mapping):
        return [("BULKSAFE is not a dict.", "Write BULKSAFE = {…} in the settings.")]
    known = [field.name for field in fields(Settings)]
    found = []
    for key, value in configured.items():
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            fix = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
            found.append((f"BULKSAFE has an unknown key {key!r}.", fix))
        elif not _is_names(value):
            found.append(
                (
                    f"BULKSAFE[{key!r}] is {value!r}, not a list of schema names.",
                    f'Write BULKSAFE = {{{key!r}: ["public"]}}.',
                )
            )
    return found


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) and v for v in value)


def get() -> Settings:
    """The settings in force. Ill-typed ones are left out: the system checks report them."""
    configured: Any = getattr(settings, "BULKSAFE", {})
    if problems(configured):
        return Settings()
    return Settings(**{key: tuple(value) for key, value in configured.items()})
