"""The runner that Django's runtests.py is given: it writes down what became of each test.

It runs in the process of the suite, and appends lines of JSON to the file that the environment
variable ``DJANGO_SUITE_OUTCOMES`` names.
"""

import json
import os
import traceback
import unittest
from pathlib import Path

from django.apps import apps
from django.db import connections
from django.db.models import QuerySet
from django.test import runner

VARIABLE = "DJANGO_SUITE_OUTCOMES"


def _write(**line):
    with Path(os.environ[VARIABLE]).open("a") as file:
        file.write(json.dumps(line) + "\n")


class Raised(Exception):  # noqa: N818  (it is raised nowhere)
    """What a test has raised, as text.

    Django sends the exceptions from the processes that run tests to the one that reports them, and
    most cannot be pickled without one more package.
    """


def _as_text(error):
    kind, value, _ = error
    return str(value) if kind is Raised else "".join(traceback.format_exception(*error))


def _portable(error):
    return Raised, Raised(_as_text(error)), None


class _RemoteResult(runner.RemoteTestResult):
    def addError(self, test, err):  # noqa: N802
        super().addError(test, _portable(err))

    def addFailure(self, test, err):  # noqa: N802
        super().addFailure(test, _portable(err))

    def addExpectedFailure(self, test, err):  # noqa: N802
        super().addExpectedFailure(test, _portable(err))

    def addSubTest(self, test, subtest, err):  # noqa: N802
        """As a failure of the test: the parameters of a part of it are not pickled either."""
        if err is not None:
            is_failure = issubclass(err[0], test.failureException)
            (self.addFailure if is_failure else self.addError)(test, err)


class _RemoteRunner(runner.RemoteTestRunner):
    resultclass = _RemoteResult


class _ParallelSuite(runner.ParallelTestSuite):
    runner_class = _RemoteRunner


class Result(unittest.TextTestResult):
    """Records outcomes, including the replayed outcomes of other processes."""

    def addSuccess(self, test):  # noqa: N802
        super().addSuccess(test)
        _write(test=test.id(), outcome="ok")

    def addSkip(self, test, reason):  # noqa: N802
        super().addSkip(test, reason)
        _write(test=test.id(), outcome="skipped", detail=reason)

    def addExpectedFailure(self, test, err):  # noqa: N802
        super().addExpectedFailure(test, err)
        _write(test=test.id(), outcome="expected failure")

    def addUnexpectedSuccess(self, test):  # noqa: N802
        super().addUnexpectedSuccess(test)
        _write(test=test.id(), outcome="unexpected success")

    def addFailure(self, test, err):  # noqa: N802
        super().addFailure(test, err)
        _write(test=test.id(), outcome="failure", detail=_as_text(err))

    def addError(self, test, err):  # noqa: N802
        super().addError(test, err)
        _write(test=test.id(), outcome="error", detail=_as_text(err))

    def addSubTest(self, test, subtest, err):  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            is_failure = issubclass(err[0], test.failureException)
            outcome = "failure" if is_failure else "error"
            _write(test=test.id(), outcome=outcome, detail=_as_text(err))


class Runner(runner.DiscoverRunner):
    parallel_test_suite = _ParallelSuite

    def get_resultclass(self):
        return Result

    def setup_databases(self, **kwargs):
        made = super().setup_databases(**kwargs)
        _write(about=_about([connection.alias for connection, *_ in made]))
        return made

    def run_suite(self, suite, **kwargs):
        result = super().run_suite(suite, **kwargs)
        _write(is_finished=True)
        return result


def _about(aliases):
    """What shows whether bulksafe is active in this very process and in its databases."""
    return {
        "is_installed": apps.is_installed("bulksafe"),
        "is_patched": hasattr(QuerySet.update, "__wrapped__"),
        "has_tables": {alias: _ask(alias, _HAS_TABLES) for alias in aliases},
        "has_captures": {alias: _ask(alias, _HAS_CAPTURES) for alias in aliases},
    }


_HAS_TABLES = "to_regclass('bulksafe_outbox') IS NOT NULL"
_HAS_CAPTURES = "EXISTS (SELECT FROM pg_trigger WHERE tgname LIKE '%bulksafe_capture%')"


def _ask(alias, condition):
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT {condition}")
        return cursor.fetchone()[0]
