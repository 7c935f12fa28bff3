"""``Immutable``: columns that no update changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulksafe.declarations.base import Invariant
from bulksafe.declarations.dependencies import field_name
from bulksafe.declarations.modes import ENFORCE, Mode

if TYPE_CHECKING:
    from django.db import models
    from django.utils.functional import _StrOrPromise


def _is_list(given: object) -> bool:
    return isinstance(given, list | tuple)


class Immutable(Invariant):
    """No update changes the value of any of ``fields``; writing the same value is fine.

    NULL counts as a value: it cannot be filled in later. Text is compared as it is, also where the
    column's collation takes two spellings for equal.

    Args:
        *fields: names of concrete fields of the model.
        name: defaults to ``immutable_<field>_<field>…``.
        message: what a violation says; may be translatable.
        mode: ``"observe"`` records a violation instead of refusing it; ``"new"`` is the same as
            ``"enforce"``.
    """

    def __init__(
        self,
        *fields: str,
        name: str | None = None,
        message: _StrOrPromise | None = None,
        mode: Mode = ENFORCE,
    ) -> None:
        # Names in a list are refused, under a label that can be read.
        named = [one for given in fields for one in (given if _is_list(given) else [given])]
        self.default_name = "_".join(["immutable", *map(str, named)])
        name = self.default_name if name is None else name
        super().__init__(name=name, message=message, mode=mode)
        self.fields = fields

    def default_message(self, label: str) -> str:
        names = ", ".join(f"“{field}”" for field in self.fields)
        return f"{names} cannot be changed."

    def about(self, model: type[models.Model]) -> set[str]:
        return {field_name(model, name) for name in self.fields}
