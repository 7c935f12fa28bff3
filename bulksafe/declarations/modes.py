"""The modes of an invariant: what the database does with a row that breaks it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

#: ``"enforce"`` refuses it, ``"new"`` refuses it unless the row was broken before, ``"observe"``
#: records it.
Mode: TypeAlias = Literal["enforce", "new", "observe"]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)

ENFORCE: Final = "enforce"
NEW: Final = "new"
OBSERVE: Final = "observe"
