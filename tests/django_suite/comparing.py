"""The outcomes of two runs, test by test."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from tests.django_suite.running import Outcome

_ABSENT = Outcome("not run")

#: The id of what goes wrong around the tests of a class, like ``setUpClass (update.tests.Simple)``.
_AROUND = re.compile(r"\w+ \((?P<place>[\w.]+)\)")


@dataclass(frozen=True)
class Difference:
    """A test with two outcomes."""

    test: str
    before: Outcome
    after: Outcome
    #: Why it cannot be otherwise; empty for what is wrong.
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """The numbers of one part of the suite."""

    label: str
    tests: int
    ok_before: int
    ok_after: int
    skipped: int
    bad_in_both: int
    differing: int
    explained: int


def differences(before, after, inherent, better=()):
    """The tests whose outcomes differ.

    Args:
        before: the outcomes by test.
        after: those of the other run.
        inherent: the reasons of differences that must be, by test.
        better: those for tests that pass in the other run only, by what their names begin with.
    """
    found = []
    for test in sorted({*before, *after}):
        one, other = before.get(test, _ABSENT), after.get(test, _ABSENT)
        if one.word != other.word:
            reason = inherent.get(test, "")
            if other.is_good and not one.is_good:
                reason = reason or _by_beginning(test, better)
            found.append(Difference(test, one, other, reason))
    return found


def _by_beginning(test, reasons):
    return next((reasons[key] for key in reasons if test.startswith(key)), "")


def rows(before, after, found, depth=1):
    """The numbers of each part of the suite, and of all of it.

    Args:
        before: the outcomes by test.
        after: those of the other run.
        found: the differences between them.
        depth: how many of the words in a test's dotted name are the name of its part.
    """
    befores, afters = _by_label(before, depth), _by_label(after, depth)
    each = [
        _row(
            label,
            befores[label],
            afters[label],
            [d for d in found if label_of(d.test, depth) == label],
        )
        for label in sorted({*befores, *afters})
    ]
    total = Counter()
    for row in each:
        total.update({key: value for key, value in vars(row).items() if key != "label"})
    return [*each, Row("all", **total)] if each else []


def _by_label(outcomes, depth):
    found = defaultdict(dict)
    for test, outcome in outcomes.items():
        found[label_of(test, depth)][test] = outcome
    return found


def _row(label, before, after, found):
    same = [one for test, one in before.items() if after.get(test, _ABSENT).word == one.word]
    return Row(
        label=label,
        tests=len({*before, *after}),
        ok_before=_count(before, "ok", "expected failure"),
        ok_after=_count(after, "ok", "expected failure"),
        skipped=_count(after, "skipped"),
        bad_in_both=sum(not one.is_good for one in same),
        differing=len(found),
        explained=sum(bool(difference.reason) for difference in found),
    )


def _count(outcomes, *words):
    return sum(one.word in words for one in outcomes.values())


def label_of(test, depth=1):
    """The part of the suite that a test is in."""
    around = _AROUND.fullmatch(test)
    return ".".join((around["place"] if around else test).split(".")[:depth])
