"""An invariant on a model, with its functions and triggers in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils import translation

from bulksafe import compiler, conf
from bulksafe.declarations import Invariant, label_of
from bulksafe.declarations.modes import OBSERVE
from bulksafe.planning import fields
from bulksafe.rendering import names, quoting

if TYPE_CHECKING:
    from django.db import models


@dataclass(frozen=True)
class Subject:
    """An invariant on a model, and the names of its database objects."""

    invariant: Invariant
    model: type[models.Model]

    @property
    def label(self) -> str:
        return label_of(self.model, self.invariant)

    @property
    def pgid(self) -> str:
        return self.invariant.get_pgid(self.model)

    def owned(self, kind: str, prefix: str = "bulksafe_") -> str:
        """The name of an object besides the first trigger; pgtrigger's prune leaves it alone."""
        uri = self.invariant.get_uri(self.model)
        return names.identifier(prefix, self.invariant.name, uri, suffix=f"_{kind}")

    @property
    def message(self) -> str:
        # A migration stores the untranslated text; it is translated for display.
        with translation.override(None):
            return str(self.invariant.message or self.invariant.default_message(self.label))

    @property
    def key(self) -> str:
        """SQL for a text like ``id=5``, from the row's image in the variable ``subject``."""
        parts = [
            f"{quoting.literal(f'{column}=')}, subject ->> {quoting.literal(column)}"
            for column in fields.primary_key_columns(self.model)
        ]
        return ", ', ', ".join(parts)

    @property
    def is_observed(self) -> bool:
        return self.invariant.mode == OBSERVE

    def refusal(self, function: str, **values: str) -> dict[str, str]:
        """A function that raises the violation."""
        return {
            "function": function,
            "template": "function",
            "body": "refuse",
            "security": "",
            "message": self.message,
            "key": self.key,
            **values,
        }

    def record(self, function: str, **values: str) -> dict[str, str]:
        """A function that records the violation, whatever the rights of the role that writes."""
        return {
            "function": function,
            "template": "function",
            "body": "observe",
            "security": "SECURITY DEFINER",
            "key": self.key,
            **values,
        }

    def verdict(self, function: str) -> dict[str, str]:
        """The function for a row that breaks a rule over the row itself."""
        return self.record(function) if self.is_observed else self.refusal(function)

    def verdict_on_change(self, function: str, **values: str) -> dict[str, str]:
        """The function for a change that breaks a rule over the old and the new row.

        Args:
            **values: variables of the message.
        """
        if self.is_observed:
            return self.record(function, body="observe_change", move=self.move)
        return self.refusal(function, **values)

    @property
    def move(self) -> str:
        """The trigger for rows that an update moves to another partition."""
        return self.owned("move", prefix="zz_bulksafe_")

    def compiled(
        self, made_as: type[compiler.Trigger] = compiler.Trigger, **parts: Any
    ) -> compiler.Trigger:
        trigger = made_as(
            name=self.invariant.name,
            invariant=self.label,
            pgid=self.pgid,
            version=compiler.VERSION,
            search_path=conf.get().SEARCH_PATH,
            **parts,
        )
        return trigger.compile(self.model)


def row_trigger(trigger: str, function: str, events: str, condition: str) -> dict[str, str]:
    return {
        "trigger": trigger,
        "template": "row_trigger",
        "timing": "AFTER",
        "events": events,
        "condition": condition,
        "function": function,
    }


def update_triggers(subject: Subject, condition: str) -> list[dict[str, str]]:
    """The triggers of a rule for updates: the usual one, and one for moves between partitions."""
    move = move_trigger(subject, subject.pgid, condition)
    return [row_trigger(subject.pgid, subject.pgid, "UPDATE", condition), move]


def move_trigger(subject: Subject, function: str, condition: str) -> dict[str, str]:
    return {
        "trigger": subject.move,
        "template": "move_trigger",
        "condition": condition,
        "function": function,
    }
