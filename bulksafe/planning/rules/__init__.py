"""Checks declarations, except for their expressions."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from bulksafe.declarations import Capture, Check, Compute, Immutable, Invariant, Transition
from bulksafe.planning.problems import Problem
from bulksafe.planning.rules.check import check_problems, events_of, refuse_missing_row
from bulksafe.planning.rules.compute import (
    compute_problems,
    invariants_of,
    refuse_computed_value,
)
from bulksafe.planning.rules.immutable import immutable_problems
from bulksafe.planning.rules.placing import (
    NO_TABLE,
    mode_problems,
    name_problems,
    table_problems,
)
from bulksafe.planning.rules.transition import transition_problems

if TYPE_CHECKING:
    from django.db import models

__all__ = [
    "NO_TABLE",
    "events_of",
    "invariants_of",
    "mode_problems",
    "name_problems",
    "problems",
    "refuse_computed_value",
    "refuse_missing_row",
    "table_problems",
]


@singledispatch
def problems(invariant: Invariant, model: type[models.Model]) -> list[Problem]:
    """Problems of the arguments alone."""
    raise NotImplementedError(f"no rules for {type(invariant).__name__}")


@problems.register(Capture)
def _capture(capture: Capture, model: type[models.Model]) -> list[Problem]:
    """A capture is not user code: its receivers are checked instead."""
    return []


problems.register(Check, check_problems)
problems.register(Compute, compute_problems)
problems.register(Immutable, immutable_problems)
problems.register(Transition, transition_problems)
