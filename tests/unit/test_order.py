"""The order of receivers, and cycles in it."""

import pytest
from django.db.models.signals import post_save

from bulksafe.declarations.order import cycle, in_order, meant_by
from bulksafe.declarations.receiver import Receiver


def receiver(name, *after):
    return Receiver(lambda **kwargs: None, name, post_save, (), after=after)


def names(found):
    return "".join(receiver.name for receiver in found)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ([], ""),
        (["a", "b", "c"], "abc"),
        (["ab", "b", "c"], "bac"),
        (["ac", "bc", "c"], "cab"),
        (["ab", "bc", "c"], "cba"),
        (["a", "ba", "cab"], "abc"),
        # Diamond: d before b and c, and these before a.
        (["abc", "bd", "cd", "d"], "dbca"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else value,
)
def test_each_receiver_runs_behind_the_receivers_it_is_declared_after(declared, expected):
    """A text is a receiver's name, followed by the names that it is ``after``."""
    listed = [receiver(name, *after) for name, *after in declared]

    assert names(in_order(listed)) == expected
    assert cycle(listed) == []


@pytest.mark.parametrize("declared", [["aa"], ["ab", "ba"], ["ab", "bc", "ca", "d"]])
def test_a_cycle_is_found_and_stops_no_receiver(declared):
    listed = [receiver(name, *after) for name, *after in declared]

    circle = cycle(listed)
    assert circle[0] is circle[-1]
    assert sorted(names(in_order(listed))) == sorted(name for name, *_ in declared)


def test_after_names_a_receiver_by_its_function_or_its_name():
    one, other = receiver("one"), receiver("other")

    assert meant_by("one", [one, other]) == [one]
    assert meant_by(other.function, [one, other]) == [other]
    assert meant_by("unknown", [one, other]) == meant_by(print, [one, other]) == []


def test_an_unlisted_receiver_delays_no_other():
    assert names(in_order([receiver("a", "elsewhere"), receiver("b")])) == "ab"
