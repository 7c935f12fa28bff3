"""``Transition``: a state machine over one column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bulksafe.declarations.base import Invariant
from bulksafe.declarations.dependencies import field_name
from bulksafe.declarations.modes import ENFORCE, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db import models
    from django.utils.functional import _StrOrPromise


class Transition(Invariant):
    """An update takes ``field`` from a state only to a state that ``allowed`` lists for it.

    Staying in a state is always allowed. A state without an entry is final. None stands for NULL.

    Args:
        field: the name of a concrete field of the model.
        allowed: the states that may follow, by state.
        initial: the states that a new row may have; any by default.
        name: defaults to ``transition_<field>``.
        message: what a violation says; may be translatable.
        mode: ``"enforce"`` refuses a violation, ``"observe"`` records it. With ``"new"`` a row in a
            state that the rule does not list may move to any listed state.
    """

    def __init__(
        self,
        field: str = "",
        allowed: Mapping[Any, Iterable[Any]] | None = None,
        *,
        initial: Iterable[Any] | None = None,
        name: str | None = None,
        message: _StrOrPromise | None = None,
        mode: Mode = ENFORCE,
    ) -> None:
        name = f"transition_{field}" if name is None else name
        super().__init__(name=name, message=message, mode=mode)
        self.field = field
        self.allowed = _kept(allowed)
        self.initial = _kept(initial)

    def default_message(self, label: str) -> str:
        """Raised for a role that may not read the column; others see ``states_message``."""
        return f"This change of “{self.field}” is not allowed."

    def states_message(self, before: str | None, after: str | None, *, is_new: bool) -> str:
        """The text of migrations_templates/v1/message_of_states.sql.

        Args:
            before, after: the states as PostgreSQL shows them; None for NULL.
            is_new: whether the row is inserted, so that it has no state before.
        """
        states = [after] if is_new else [before, after]
        verb = "start with" if is_new else "change from"
        return f"“{self.field}” cannot {verb} {' to '.join(map(_shown, states))}."

    def displayed(self, message: str, model: type[models.Model]) -> str:
        """With the display names of choices, in the active language."""
        field = model._meta.get_field(field_name(model, self.field))
        labels = {str(value): str(label) for value, label in getattr(field, "flatchoices", ())}
        return _STATE.sub(lambda state: labels.get(state[0], state[0]), message)

    def about(self, model: type[models.Model]) -> set[str]:
        return {field_name(model, self.field)}

    def edges(self) -> dict[Any, list[Any]]:
        """``allowed`` with its states in a stable order and without repetitions."""
        allowed = self.allowed if isinstance(self.allowed, Mapping) else {}
        return {state: list(dict.fromkeys(followers)) for state, followers in allowed.items()}

    def states(self) -> list[Any]:
        """All states that the rule lists, in a stable order."""
        listed: list[Any] = list(self.initial or ())
        for state, followers in self.edges().items():
            listed += [state, *followers]
        return list(dict.fromkeys(listed))


#: A state in a message.
_STATE = re.compile(r"(?<=(?:from|with) “)[^”]*(?=”)|(?<= to “)[^”]*(?=”)")
#: Longer states are cut.
_LONGEST = 64


def _shown(state: str | None) -> str:
    if state is None:
        return "no value"
    return f"“{state if len(state) <= _LONGEST else f'{state[: _LONGEST - 1]}…'}”"


def _kept(states: Any) -> Any:
    """``states`` in a form that can be read again, and in the same order by every process."""
    if isinstance(states, Mapping):
        return {state: _kept(followers) for state, followers in states.items()}
    if isinstance(states, set | frozenset):
        return sorted(states, key=repr)
    return list(states) if isinstance(states, Iterator) else states
