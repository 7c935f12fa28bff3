"""Helpers that try invariants inside a transaction that is rolled back."""

import functools
from contextlib import contextmanager

from django.db import connection, transaction
from django.db.models import BooleanField, ExpressionWrapper
from django.db.models.functions import Coalesce
from hypothesis import HealthCheck, Phase, settings

import bulksafe


def examples(count):
    """Few examples, each of which writes to the database; they are not made smaller either."""
    return settings(
        max_examples=count,
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@contextmanager
def rolled_back():
    """A savepoint that is always rolled back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def undone(function):
    """Run each example of hypothesis in a savepoint of its own."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        with rolled_back():
            function(*args, **kwargs)

    return run


def install(model, *invariants):
    """Put the triggers of invariants that the model does not declare on its table."""
    with connection.cursor() as cursor:
        for invariant in invariants:
            cursor.execute(invariant.compile(model).install_sql)


def refused(operation):
    """Whether an invariant refuses the operation, which then leaves nothing behind."""
    try:
        with transaction.atomic():
            operation()
    except bulksafe.InvariantViolation:
        return True
    return False


def check_constraints():
    """What a commit does to deferred rules."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


def accepted(rows, condition, **annotations):
    """The keys of the rows for which the ORM finds the condition true or unknown."""
    satisfied = Coalesce(ExpressionWrapper(condition, BooleanField()), True)
    found = rows.annotate(**annotations).annotate(satisfied=satisfied).filter(satisfied=True)
    return set(found.values_list("pk", flat=True))
