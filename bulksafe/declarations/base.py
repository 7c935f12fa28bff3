"""What all invariants have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from pgtrigger import registry

from bulksafe.compat import PgTrigger
from bulksafe.declarations.modes import ENFORCE, Mode
from bulksafe.rendering import names

if TYPE_CHECKING:
    from django.db import models
    from django.utils.functional import _StrOrPromise

    from bulksafe.compiler import Trigger


class Planner(Protocol):
    """Turns a declaration on a model into its triggers."""

    def __call__(self, invariant: Invariant, model: type[models.Model], /) -> Trigger: ...


class Invariant(PgTrigger):
    """A rule that holds for every row, whatever way the row is written.

    An invariant goes into ``Meta.triggers`` or into ``bulksafe.register``. It holds no reference to
    a model: the same object in an abstract base stands for a rule on every concrete child.

    A declaration never raises: what is wrong with it is reported by ``manage.py check``.
    """

    #: Set by bulksafe.planning, which lies above this layer.
    planner: ClassVar[Planner]
    #: Declarations and other triggers whose name was already taken, as (model, trigger).
    rejected: ClassVar[list[tuple[type[models.Model], PgTrigger]]] = []

    #: The app whose migrations get an invariant that is in no ``Meta.triggers``.
    home: str = ""

    def __init__(
        self,
        *,
        name: str | None,
        message: _StrOrPromise | None = None,
        mode: Mode = ENFORCE,
    ) -> None:
        self.given_name: object = name
        self.name = name if isinstance(name, str) else ""
        self.message = message
        self.mode = mode

    def get_pgid(self, model: type[models.Model]) -> str:
        return names.identifier("pgtrigger_", self.name, self.get_uri(model))

    def validate_name(self) -> None:
        """Skipped: the system checks do it, and suggest a fix."""

    def compile(self, model: type[models.Model]) -> Trigger:
        """The triggers of this invariant on ``model``, as a migration stores them.

        Raises:
            InvalidDeclaration: the system checks refuse this declaration.
        """
        return Invariant.planner(self, model)

    @property
    def is_attached(self) -> bool:
        """Whether it was attached from outside of the model's ``Meta.triggers``."""
        return bool(self.home)

    def home_on(self, model: type[models.Model]) -> str:
        """The label of the app whose migrations attach it to ``model``, if any."""
        return self.home

    def register(self, *models: type[models.Model]) -> None:
        for model in models:
            try:
                registry.set(self.get_uri(model), model=model, trigger=self)  # type: ignore[arg-type]
            except KeyError:
                self.rejected.append((model, self))
            if self.is_attached:
                _keep_out_of_state(model, self)

    def default_message(self, label: str) -> str:
        """The message for a violation when the user gave none."""
        return f"Invariant “{label.rpartition(':')[2]}” is violated."

    def displayed(self, message: str, model: type[models.Model]) -> str:
        """The default message for display, from the one that PostgreSQL raised."""
        return message

    def about(self, model: type[models.Model]) -> set[str]:
        """The names of the fields of ``model`` that the rule is about."""
        return set()


def _keep_out_of_state(model: type[models.Model], invariant: Invariant) -> None:
    """Otherwise ``makemigrations`` would write it into the migrations of the model's app."""
    attributes = model._meta.original_attrs
    listed = attributes.get("triggers", [])
    attributes["triggers"] = [trigger for trigger in listed if trigger is not invariant]
