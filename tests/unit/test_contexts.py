"""What a context may hold, where it applies, and the middleware: without a database."""

import asyncio
import datetime
import decimal
import json

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpResponse
from django.test import RequestFactory

import bulksafe
from bulksafe import contexts
from bulksafe.middleware import ContextMiddleware


def test_values_that_are_no_json():
    with pytest.raises(TypeError, match="not JSON serializable"):
        bulksafe.context(user=object())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a\0b", "half a pair: \ud83d"])
def test_values_that_postgresql_s_json_cannot_hold(value):
    with pytest.raises(ValueError):  # noqa: PT011  (each has words of its own)
        bulksafe.context(key=[value])


def test_an_escaped_backslash_before_u0000_is_fine():
    with bulksafe.context(key="\\u0000 😀") as values:
        assert values["key"] == "\\u0000 😀"


def test_dates_and_decimals_are_fine():
    with bulksafe.context(at=datetime.date(2026, 1, 1), price=decimal.Decimal("1.5")) as values:
        assert set(values) == {"at", "price"}


@pytest.mark.parametrize("values", [{}, {"user": 7}], ids=["empty", "set"])
def test_receivers_may_store_and_change_their_instances(values):
    with bulksafe.context(**values):
        given = contexts.current()
        assert json.dumps(given) == json.dumps(values)
        given["user"] = 8
        assert contexts.current() == values


def test_it_decorates():
    @bulksafe.context(job="nightly")
    def work():
        return dict(contexts.current())

    assert work() == {"job": "nightly"}
    assert dict(contexts.current()) == {}


def test_it_decorates_coroutines():
    @bulksafe.context(job="nightly")
    async def work():
        await asyncio.sleep(0)
        return dict(contexts.current())

    assert asyncio.run(work()) == {"job": "nightly"}
    assert dict(contexts.current()) == {}


def _generator():
    yield


async def _async_generator():
    yield


@pytest.mark.parametrize("function", [_generator, _async_generator])
def test_it_does_not_decorate_what_runs_after_the_call(function):
    with pytest.raises(TypeError, match=rf"cannot decorate {function.__name__}\(\)"):
        bulksafe.context(job="nightly")(function)


def test_tasks_have_their_own():
    async def one(number):
        with bulksafe.context(number=number):
            await asyncio.sleep(0)
            return contexts.current()["number"]

    async def all_of_them():
        return await asyncio.gather(*map(one, range(5)))

    assert asyncio.run(all_of_them()) == list(range(5))


def request(user=None, **headers):
    made = RequestFactory().get("/", headers=headers)
    if user is not None:
        made.user = user
    return made


def seen(made):
    found = {}

    def view(request):
        found.update(contexts.current())
        return HttpResponse()

    ContextMiddleware(view)(made)
    return found


def test_the_middleware_names_the_user_and_the_request():
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    found = seen(request(User(pk=7), **{"X-Request-ID": "abc", "traceparent": trace}))

    assert found == {"user": 7, "request_id": "abc", "traceparent": trace}
    assert dict(contexts.current()) == {}


@pytest.mark.parametrize("user", [None, AnonymousUser()])
def test_the_middleware_without_a_user(user):
    found = seen(request(user))

    assert set(found) == {"request_id"}
    assert len(found["request_id"]) == 36


def test_the_middleware_under_asgi():
    found = {}

    async def view(request):
        found.update(contexts.current())
        return HttpResponse()

    made = request(**{"X-Request-ID": "abc"})

    async def auser():
        return User(pk=7)

    made.auser = auser
    asyncio.run(ContextMiddleware(view)(made))

    assert found == {"user": 7, "request_id": "abc"}
