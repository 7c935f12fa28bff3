"""The ``BULKSAFE`` setting: one dict, typed, unknown keys refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypeGuard

from django.conf import settings


@dataclass(frozen=True)
class Settings:
    """The values of ``BULKSAFE``.

    Attributes:
        DISCOVER: modules to import from each app besides ``invariants``, such as ``"receivers"``.
            Empty by default, since importing a module also connects its plain receivers, which an
            app may deliberately leave unconnected.
        SEARCH_PATH: schemas whose functions, operators, collations and types invariants may use,
            after ``pg_catalog`` and the schemas of the table's own column types. Empty by default:
            a role that can create objects in a listed schema can change what an expression means
            at the next ``migrate``.
        TRUNCATE: ``"refuse"`` or ``"allow"``: whether TRUNCATE of a table that has receivers for
            deletion is an error. It leaves no rows to call them with.
        POLL_INTERVAL: seconds after which a listener that was not woken looks for events.
        BATCH_SIZE: events that a worker takes at a time.
        RETRY_DELAY: seconds before the second attempt, doubled for each further one.
        RETRY_DELAY_MAX: seconds that no such delay exceeds.
        LEASE: seconds without a sign of life from a listener after which a different one takes over
            a call that it makes alone.
        TIMEOUT: seconds that a call may take if its receiver has no ``timeout=``.
        SLOW_CALL: seconds that a call may take in a batch. A longer one is interrupted and repeated
            alone, where it delays only its own row.
        READY_LAG: seconds that an event may be due before ``/readyz`` answers 503.
        MAX_OBSERVED: records that an invariant with ``mode="observe"``, or a receiver with
            ``otherwise="observe"``, may have.
        WRITER_ROLES: database roles that write through Django, beside the owner of the tables:
            ``migrate`` lets receivers run in their transactions.
        LISTENER_ROLES: database roles that run ``bulksafe listen``, beside the owner. Their
            receivers may write, too.
        ROLLOUT: labels of models whose receivers are being moved from ``@receiver`` to
            ``@critical``, or True for all. While the capture of such a model is off, its receivers
            run like plain signal receivers; ``migrate`` installs a new capture switched off.
        LOCK_TIMEOUT: seconds that ``migrate`` waits for the lock of a table before it gives up, in
            bulksafe's operations. 0 for no limit besides PostgreSQL's own.
        LOCK_ATTEMPTS: how often it tries to get the lock, outside of atomic migrations.
    """

    DISCOVER: tuple[str, ...] = ()
    SEARCH_PATH: tuple[str, ...] = ()
    TRUNCATE: str = "refuse"
    POLL_INTERVAL: float = 1.0
    BATCH_SIZE: int = 1000
    RETRY_DELAY: float = 1.0
    RETRY_DELAY_MAX: float = 3600.0
    LEASE: float = 60.0
    TIMEOUT: float = 60.0
    SLOW_CALL: float = 1.0
    READY_LAG: float = 300.0
    MAX_OBSERVED: int = 1000
    WRITER_ROLES: tuple[str, ...] = ()
    LISTENER_ROLES: tuple[str, ...] = ()
    ROLLOUT: tuple[str, ...] | bool = ()
    LOCK_TIMEOUT: float = 0.0
    LOCK_ATTEMPTS: int = 10


#: In seconds: PostgreSQL stores the milliseconds as an integer.
LONGEST_LOCK_TIMEOUT = 2_147_483


def problems(configured: object) -> list[tuple[str, str]]:
    """Return what is wrong with a ``BULKSAFE`` value, as (fact, fix) pairs."""
    if not isinstance(configured, Mapping):
        return [(f"BULKSAFE is {configured!r}, not a dict.", "Write BULKSAFE = {…}.")]
    return [problem for key, value in configured.items() for problem in _problems_of(key, value)]


_KEYS = tuple(field.name for field in fields(Settings))


def _problems_of(key: object, value: object) -> list[tuple[str, str]]:
    if key in _KEYS:
        return _value_problems(str(key), value)
    close = get_close_matches(str(key), _KEYS, n=1)
    fix = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(_KEYS)}."
    return [(f"BULKSAFE has an unknown key {key!r}.", fix)]


def _value_problems(key: str, value: object) -> list[tuple[str, str]]:
    default = getattr(Settings, key)
    if key == "SEARCH_PATH":
        return _search_path_problems(key, value)
    if key in ("WRITER_ROLES", "LISTENER_ROLES"):
        return _role_problems(key, value)
    if key == "DISCOVER":
        return _discover_problems(key, value)
    if key == "ROLLOUT":
        return _rollout_problems(key, value)
    if key == "TRUNCATE":
        wrong = value not in ("refuse", "allow")
        fix = 'Write "refuse" or "allow".'
    else:
        kinds = (int,) if isinstance(default, int) else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if key == "LOCK_TIMEOUT" and is_number and value == 0:
            return []
        wrong = not is_number or not value > 0  # type: ignore[operator]
        fix = f"Write a positive number, like the default {default}."
        if key == "LOCK_TIMEOUT":
            wrong = wrong or value > LONGEST_LOCK_TIMEOUT  # type: ignore[operator]
            fix = f"Write a positive number, at most {LONGEST_LOCK_TIMEOUT}, or 0 for no limit."
    return [(f"BULKSAFE[{key!r}] is {value!r}.", fix)] if wrong else []


def _search_path_problems(key: str, value: object) -> list[tuple[str, str]]:
    if not isinstance(value, list | tuple):
        return [
            (
                f"BULKSAFE[{key!r}] is {value!r}, not a list of schema names.",
                f'Write BULKSAFE = {{{key!r}: ["public"]}}.',
            )
        ]
    return [_wrong_schema(key, name) for name in value if not _is_schema(name)]


def _role_problems(key: str, value: object) -> list[tuple[str, str]]:
    if not isinstance(value, list | tuple):
        fix = f'Write BULKSAFE = {{{key!r}: ["app"]}}.'
        return [(f"BULKSAFE[{key!r}] is {value!r}, not a list of role names.", fix)]
    fix = "List names of database roles, up to 63 bytes long; PUBLIC is not a role."
    return [
        (f"BULKSAFE[{key!r}] lists {name!r}, which is not a role name.", fix)
        for name in value
        if not _is_identifier(name) or name.upper() == "PUBLIC"
    ]


def _rollout_problems(key: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, bool):
        return []
    fix = f'Write BULKSAFE = {{{key!r}: ["shop.Order"]}}, or True for all models.'
    return _name_problems(key, value, "model labels", "a model label", fix, is_valid=_is_label)


def _discover_problems(key: str, value: object) -> list[tuple[str, str]]:
    fix = f'Write BULKSAFE = {{{key!r}: ["receivers"]}}.'
    one = "the name of a module in an app"
    return _name_problems(key, value, "module names", one, fix, is_valid=_is_module)


def _name_problems(
    key: str, value: object, names: str, one: str, fix: str, *, is_valid: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """The problems of a list of names.

    Args:
        names, one: what the list holds, and what each element of it is.
    """
    if not isinstance(value, list | tuple):
        return [(f"BULKSAFE[{key!r}] is {value!r}, not a list of {names}.", fix)]
    return [
        (f"BULKSAFE[{key!r}] lists {name!r}, which is not {one}.", fix)
        for name in value
        if not (isinstance(name, str) and is_valid(name))
    ]


def _is_label(name: str) -> bool:
    return name.count(".") == 1


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


#: Names that PostgreSQL does not take for a schema's name.
_NOT_SCHEMAS = ("$user", "pg_temp")
_IDENTIFIER_BYTES = 63


def _is_identifier(name: object) -> TypeGuard[str]:
    return (
        isinstance(name, str) and 0 < len(name.encode()) <= _IDENTIFIER_BYTES and "\0" not in name
    )


def _is_schema(name: object) -> bool:
    return _is_identifier(name) and name not in _NOT_SCHEMAS and not name.startswith("pg_temp_")


def _wrong_schema(key: str, name: object) -> tuple[str, str]:
    return (
        f"BULKSAFE[{key!r}] lists {name!r}, which is not a schema that all sessions share.",
        "List names of schemas, up to 63 bytes long; no “$user”, and no temporary schema.",
    )


def get() -> Settings:
    """The settings in force. System checks report wrong values; they get their defaults."""
    configured: object = getattr(settings, "BULKSAFE", {})
    if not isinstance(configured, Mapping):
        return Settings()
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in configured.items()
        if not _problems_of(key, value)
    }
    return Settings(**values)


class _Rollout:
    """The models in rollout, for one value of the setting: asked for every write."""

    def __init__(self) -> None:
        self._configured: object = None
        self.labels: frozenset[str] | None = frozenset()

    def follow(self) -> None:
        """Read the setting, unless it is the object that was read last."""
        configured: object = getattr(settings, "BULKSAFE", None)
        if configured is not self._configured:
            listed = get().ROLLOUT
            is_all = listed is True
            names = () if isinstance(listed, bool) else listed
            self.labels = None if is_all else frozenset(name.lower() for name in names)
            self._configured = configured


_rollout = _Rollout()


def rollout() -> frozenset[str] | None:
    """The lower-case labels of the models in rollout; None for all models."""
    _rollout.follow()
    return _rollout.labels


def is_in_rollout(label: str) -> bool:
    """Whether the setting lists the model with this label."""
    labels = rollout()
    return labels is None or label.lower() in labels
