import os
import signal

import pytest

from bulksafe.management.subcommands.ending import ended_by_sigterm


def replace_the_interruption():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        raise ValueError("another command is already in progress")


def swallow_the_interruption():
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("block", [replace_the_interruption, swallow_the_interruption])
def test_the_interruption_wins_over_what_the_block_makes_of_it(block):
    with pytest.raises(SystemExit) as ended, ended_by_sigterm():
        block()
    assert ended.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_other_errors_and_the_handler_before_stay(error):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(error), ended_by_sigterm():
        raise error
    assert signal.getsignal(signal.SIGTERM) is before
