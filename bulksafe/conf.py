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
        return [(f"BULKSAFE is {configured!r}, not a dict.", "Write BULKSAFE = {…}.")]
    known = [field.name for field in fields(Settings)]
    found = []
    for key, value in configured.items():
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            fix = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
            found.append((f"BULKSAFE has an unknown key {key!r}.", fix))
        elif not isinstance(value, list | tuple):
            found.append(
                (
                    f"BULKSAFE[{key!r}] is {value!r}, not a list of schema names.",
                    f'Write BULKSAFE = {{{key!r}: ["public"]}}.',
                )
            )
        else:
            found += [_wrong_schema(key, name) for name in value if not _is_schema(name)]
    return found


#: What PostgreSQL takes for something else than a schema's name.
_NOT_SCHEMAS = ("$user", "pg_temp")
_IDENTIFIER_BYTES = 63


def _is_schema(name: object) -> bool:
    return (
        isinstance(name, str)
        and 0 < len(name.encode()) <= _IDENTIFIER_BYTES
        and "\0" not in name
        and name not in _NOT_SCHEMAS
        and not name.startswith("pg_temp_")
    )


def _wrong_schema(key: str, name: object) -> tuple[str, str]:
    return (
        f"BULKSAFE[{key!r}] lists {name!r}, which is no schema that every session shares.",
        "List names of schemas, up to 63 bytes long; no “$user”, and no temporary schema.",
    )


def get() -> Settings:
    """The settings in force. Ill-typed ones are left out: the system checks report them."""
    configured: Any = getattr(settings, "BULKSAFE", {})
    if problems(configured):
        return Settings()
    return Settings(**{key: tuple(value) for key, value in configured.items()})
