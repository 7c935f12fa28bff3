"""The outcome of a failure, and the selection of parked events by a command."""

import math

import pytest
from django.db.models.signals import post_save

from bulksafe import PermanentFailure, RetryAfter
from bulksafe.declarations import Receiver
from bulksafe.outbox.failures import DEAD, WAITING, Failure, retry_delay
from bulksafe.outbox.parked import Selection


def receiver(**options):
    return Receiver(print, "print", post_save, (), max_attempts=3, **options)


def failure(error=None, attempts=1, **options):
    return Failure.of(error or ValueError("no"), attempts, receiver(**options))


@pytest.mark.parametrize(
    ("attempts", "longest"),
    [(1, 2.0), (2, 4.0), (3, 8.0), (5, 30.0), (64, 30.0), (10_000, 30.0)],
)
def test_the_delay_doubles_up_to_a_limit_and_half_of_it_is_random(settings, attempts, longest):
    settings.BULKSAFE = {"RETRY_DELAY": 2, "RETRY_DELAY_MAX": 30}

    delays = [retry_delay(attempts) for _ in range(200)]

    assert longest / 2 <= min(delays) < max(delays) <= longest
    assert max(delays) - min(delays) > longest / 4


@pytest.mark.parametrize(
    ("attempts", "on_dead", "state", "blocks"),
    [
        (1, "block", WAITING, True),
        (2, "skip", WAITING, True),
        (3, "block", DEAD, True),
        (3, "skip", DEAD, False),
        (4, "skip", DEAD, False),
    ],
)
def test_the_last_attempt_creates_a_dead_letter(attempts, on_dead, state, blocks):
    found = failure(attempts=attempts, on_dead=on_dead)

    assert (found.state, found.blocks, found.attempts) == (state, blocks, attempts)


@pytest.mark.parametrize(
    ("backoff", "attempts", "shortest", "longest"),
    [
        (5, 1, 2.5, 5),
        (5, 3, 10, 20),
        (5, 1_000, 1_800, 3_600),
        ([1, 60, 600], 1, 0.5, 1),
        ([1, 60, 600], 2, 30, 60),
        ([1, 60, 600], 9, 300, 600),
        (lambda attempts: 7 * attempts, 3, 21, 21),
        (lambda attempts: -1, 3, 0, 0),
    ],
)
def test_a_receiver_has_delays_of_its_own(backoff, attempts, shortest, longest):
    delays = [retry_delay(attempts, backoff) for _ in range(100)]

    assert shortest <= min(delays)
    assert max(delays) <= longest


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize("answer", [math.nan, math.inf, None, "soon", ValueError])
def test_a_backoff_function_that_fails_keeps_no_event_waiting(settings, caplog, answer):
    settings.BULKSAFE = {"RETRY_DELAY": 2}

    def backoff(attempts):
        if answer is ValueError:
            raise ValueError
        return answer

    assert 1 <= failure(backoff=backoff).delay <= 2
    assert "using the default delay" in caplog.text


def test_an_error_whose_text_fails():
    found = failure(UnprintableError())

    assert found.error == "UnprintableError: its text cannot be shown: RuntimeError"
    assert "UnprintableError" in found.traceback


def test_a_receiver_chooses_the_time_of_its_retry():
    found = failure(RetryAfter(90), attempts=2, backoff=[1])

    assert (found.state, found.delay, found.error) == (WAITING, 90.0, "RetryAfter: in 90 s")
    assert failure(RetryAfter(90), attempts=3).state == DEAD


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_retry_after_takes_a_number_of_seconds(seconds):
    with pytest.raises(ValueError, match=r"must be finite, 0 or more"):
        RetryAfter(seconds)


@pytest.mark.parametrize(("on_dead", "blocks"), [("block", True), ("skip", False)])
def test_a_receiver_rejects_an_event_for_good(on_dead, blocks):
    found = failure(PermanentFailure("no such customer"), on_dead=on_dead)

    assert (found.state, found.blocks) == (DEAD, blocks)
    assert found.error == "PermanentFailure: no such customer"


def test_a_failure_says_what_was_raised_and_where():
    try:
        raise ValueError("too high")
    except ValueError as error:
        found = failure(error)

    assert found.error == "ValueError: too high"
    assert "test_parking.py" in found.traceback


def test_a_failure_is_text_that_postgresql_takes():
    found = failure(ValueError("a\0b\ud800c"))

    assert found.error == "ValueError: a\N{REPLACEMENT CHARACTER}b?c"


def test_of_a_long_failure_the_beginning_and_the_end_are_kept():
    found = failure(ValueError(f"begins {'.' * 100_000} ends"))

    assert len(found.error) < 1_010
    assert len(found.traceback) < 20_010
    assert found.error.startswith("ValueError: begins")
    assert found.error.endswith("ends")


@pytest.mark.parametrize(
    ("selection", "sql"),
    [
        (Selection(), "true"),
        (Selection([7, 8]), "id = ANY (%(ids)s)"),
        (Selection(receiver="r"), "receiver = %(receiver)s"),
        (Selection(queue="q", state="dead"), "queue = %(queue)s AND state = %(state)s"),
        (
            Selection(older_than=60.0),
            "parked_at < now() - %(older_than)s * interval '1 second'",
        ),
    ],
    ids=str,
)
def test_a_selection_tests_the_given_values(selection, sql):
    assert selection.sql == sql
    assert selection.parameters == {**vars(selection), "ids": list(selection.ids)}


def test_an_age_of_nothing_is_an_age():
    assert "older_than" in Selection(older_than=0.0).sql
