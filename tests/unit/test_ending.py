import os
import signal

import pytest

from bulksafe.management.subcommands.ending import ended_by_sigterm


def test_an_error_that_takes_the_place_of_the_interruption_does_not_hide_it():
    with pytest.raises(SystemExit) as ended, ended_by_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise ValueError("another command is already in progress")
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_block_that_swallows_the_interruption_ends_the_process():
    with pytest.raises(SystemExit) as ended, ended_by_sigterm():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_other_errors_and_the_handler_before_stay(error):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(error), ended_by_sigterm():
        raise error
    assert signal.getsignal(signal.SIGTERM) is before
