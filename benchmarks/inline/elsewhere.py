"""(d) Statements on tables without critical receivers, where other tables have some."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from time import perf_counter
from typing import Any

from django.db import connection, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector
from django.db.utils import DatabaseErrorWrapper

from benchmarks.inline import database
from benchmarks.inline.models import Elsewhere
from benchmarks.inline.orders import values
from benchmarks.inline.plan import Plan
from benchmarks.inline.undisturbed import undisturbed
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim
from bulksafe.writer.watch import Watch

AGAINST_NONE = Aim(1.02, at_most=True)

WITH = "watched"
WITHOUT, WITHOUT_AGAIN = "without the watch and the patches", "without them, again"
DJANGO = "without anything of bulksafe"

#: How many statements are made before another variant takes its turn, and how many before those
#: that are timed: Python's interpreter adapts itself to the methods that it finds.
BLOCK, WARMING_UP = 25, 15

ROWS = 1_000

#: What bulksafe's patches of Django's methods are known by.
_PATCHED = "_bulksafe_applied"


def create(number: int) -> None:
    Elsewhere.objects.create(**values(number))


def update(number: int) -> None:
    Elsewhere.objects.filter(pk=number % ROWS + 1).update(quantity=number)


def get(number: int) -> None:
    Elsewhere.objects.get(pk=number % ROWS + 1)


STATEMENTS = {"create()": create, "update()": update, "get()": get}
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "in autocommit": nullcontext,
    "in atomic()": transaction.atomic,
}


@contextmanager
def as_it_is() -> Iterator[None]:
    yield


@contextmanager
def unwatched() -> Iterator[None]:
    """Django's own methods, and a connection without the watch."""
    with ExitStack() as stack:
        for owner in (Model, QuerySet, Collector, DatabaseWrapper):
            stack.enter_context(_unpatched(owner))
        stack.enter_context(_wrapped_by(lambda wrapper: not isinstance(wrapper, Watch)))
        yield


@contextmanager
def bare() -> Iterator[None]:
    """As Django makes a connection."""
    own = connection.wrap_database_errors
    with unwatched(), _wrapped_by(lambda wrapper: False):
        connection.wrap_database_errors = DatabaseErrorWrapper(connection)
        try:
            yield
        finally:
            connection.wrap_database_errors = own


@contextmanager
def _unpatched(owner: type) -> Iterator[None]:
    patched = {n: method for n, method in vars(owner).items() if hasattr(method, _PATCHED)}
    for name, method in patched.items():
        setattr(owner, name, method.__wrapped__)
    try:
        yield
    finally:
        for name, method in patched.items():
            setattr(owner, name, method)


@contextmanager
def _wrapped_by(is_kept: Callable[[Any], bool]) -> Iterator[None]:
    before = list(connection.execute_wrappers)
    connection.execute_wrappers[:] = filter(is_kept, before)
    try:
        yield
    finally:
        connection.execute_wrappers[:] = before


VARIANTS = {WITH: as_it_is, WITHOUT: unwatched, WITHOUT_AGAIN: unwatched, DJANGO: bare}


class Statements:
    """The variants take turns in one process and on one connection, a block of statements each."""

    section = "d"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.results = results

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for statement, run in STATEMENTS.items():
            for mode, surroundings in MODES.items():
                measure = measure_of(statement, mode)
                say(measure)
                database.fill(Elsewhere, ROWS)
                taken = self._measure(run, surroundings)
                for name, seconds in taken.items():
                    self.results.add("d", measure, name, undisturbed(seconds) * 1e6)

    def _measure(
        self, run: Callable[[int], None], surroundings: Callable[[], AbstractContextManager[Any]]
    ) -> dict[str, list[float]]:
        taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
        gc.collect()
        gc.disable()
        try:
            for repeat in range(self.plan.statements // BLOCK):
                for name in turned(list(VARIANTS), repeat):
                    with VARIANTS[name](), surroundings():
                        taken[name] += _block(run)
        finally:
            gc.enable()
        return taken


def _block(run: Callable[[int], None]) -> list[float]:
    for number in range(WARMING_UP):
        run(number)
    found = []
    for number in range(BLOCK):
        start = perf_counter()
        run(number)
        found.append(perf_counter() - start)
    return found


def measure_of(statement: str, mode: str) -> str:
    return f"{statement} {mode}"


def comparisons(results: Results) -> Iterator[Comparison]:
    for statement in STATEMENTS:
        for mode in MODES:
            measure = measure_of(statement, mode)
            ours = results.of("d", measure, WITH)
            without = results.mean_of("d", measure, WITHOUT, WITHOUT_AGAIN)
            yield compared("d", measure, f"{WITH} ÷ {WITHOUT}", (ours, without), AGAINST_NONE)
            django = results.of("d", measure, DJANGO)
            yield compared("d", measure, f"{WITH} ÷ {DJANGO}", (ours, django))
            again = results.of("d", measure, WITHOUT_AGAIN), results.of("d", measure, WITHOUT)
            yield compared("d", measure, "noise: without ÷ without", again)
