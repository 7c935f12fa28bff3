"""Waiting for file descriptors, of which a listener with many workers has more than 1024."""

import os
import resource

import pytest

from bulksafe.listener import descriptors


@pytest.fixture
def high():
    """Both ends of a pipe; the one to read has a number that select() refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors.allow(2000)
    ear, button = os.pipe()
    os.dup2(ear, 1500)
    os.close(ear)
    yield 1500, button
    os.close(1500)
    os.close(button)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_high_number_is_waited_for(high):
    ear, button = high
    assert descriptors.readable([ear], 0.0) == set()
    os.write(button, b"!")
    assert descriptors.readable([ear], 60.0) == {ear}


def test_only_those_with_something_to_read_are_named(high):
    ear, _ = high
    other, end = os.pipe()
    os.write(end, b"!")
    assert descriptors.readable([ear, other], 60.0) == {other}
    for number in (other, end):
        os.close(number)


def test_a_limit_that_is_high_enough_stays():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors.allow(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
