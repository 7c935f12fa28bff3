"""The context in force, and its JSON for the database."""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder

from bulksafe.call_stack import running

if TYPE_CHECKING:
    from collections.abc import Mapping

in_force: ContextVar[Mapping[str, Any]] = ContextVar(
    "bulksafe.context", default=MappingProxyType({})
)

#: The key in an event's context that lists the receivers whose calls wrote it.
WRITTEN_BY = "bulksafe.written_by"

#: How ``json.dumps`` writes a NUL.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def refuse_what_jsonb_refuses(values: Mapping[str, Any]) -> None:
    """Raise early the errors that the next write would raise.

    Raises:
        TypeError: a value cannot become JSON.
        ValueError: a number is not finite, or a text contains a character that PostgreSQL's JSON
            cannot hold.
    """
    text = json.dumps(values, cls=DjangoJSONEncoder, allow_nan=False, ensure_ascii=False)
    text.encode()
    if _NUL.search(text):
        raise ValueError("PostgreSQL's JSON cannot hold NUL characters.")


def current() -> dict[str, Any]:
    """A copy of the context in force: a receiver may store it as JSON, or change it."""
    return dict(in_force.get())


def identity() -> str:
    """The context with the names of the receivers being called; empty without either."""
    values, names = in_force.get(), running()
    if not values:
        return _of_receivers(names)
    if names:
        values = {**values, WRITTEN_BY: names}
    return json.dumps(values, cls=DjangoJSONEncoder)


@lru_cache(maxsize=1000)
def _of_receivers(names: tuple[str, ...]) -> str:
    """Called for each write of a receiver."""
    return json.dumps({WRITTEN_BY: names}) if names else ""
