"""A receiver gets the arguments of bulksafe that its signature names."""

import functools

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from bulksafe.declarations.parameters import named_extras


def plain(sender, instance, **kwargs):
    return kwargs.get("old")


def positional(sender, old, context=None, **kwargs):
    pass


def keyword(sender, *, changed, event_id=None, **kwargs):
    pass


def positional_only(old, /, **kwargs):
    pass


async def later(sender, old, **kwargs):
    pass


class Audit:
    def note(self, sender, old, **kwargs):
        pass

    @transaction.atomic
    def wrapped(self, sender, changed, **kwargs):
        pass

    @classmethod
    def of_class(cls, context, **kwargs):
        pass

    @staticmethod
    def static(event_id, **kwargs):
        pass


class Callable:
    def __call__(self, sender, old, **kwargs):
        pass


class CallableWrapped:
    @transaction.atomic
    def __call__(self, sender, old, **kwargs):
        pass


def passing_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def using_old(function):
    """Names an argument itself, which the function inside does not."""

    @functools.wraps(function)
    def wrapper(sender, old, **kwargs):
        return function(sender, **kwargs)

    return wrapper


def holding_back(function):
    """Passes nothing on that it does not name."""

    @functools.wraps(function)
    def wrapper(sender, instance):
        return function(sender, instance, old=None)

    return wrapper


def hiding(function):
    """Says nothing of what it wraps."""

    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@functools.lru_cache
def cached(sender, old, **kwargs):
    pass


def around_itself(sender, old, **kwargs):
    pass


around_itself.__wrapped__ = around_itself


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (plain, ""),
        (positional, "old context"),
        (keyword, "changed event_id"),
        (positional_only, ""),
        (later, "old"),
        (lambda context, **kwargs: None, "context"),
        (Audit().note, "old"),
        (Audit().wrapped, "changed"),
        (Audit.of_class, "context"),
        (Audit.static, "event_id"),
        (Callable(), "old"),
        (CallableWrapped(), "old"),
        (passing_on(positional), "old context"),
        (passing_on(passing_on(keyword)), "changed event_id"),
        (using_old(keyword), "old changed event_id"),
        (using_old(plain), "old"),
        (holding_back(positional), ""),
        (hiding(positional), ""),
        (sync_to_async(positional), "old context"),
        (cached, "old"),
        (around_itself, "old"),
        (functools.partial(positional), "old context"),
        (functools.partial(positional, old=None), "context"),
        (functools.partial(positional, "sender", "old"), "context"),
        (functools.partial(passing_on(positional), context={}), "old"),
        (functools.partial(functools.partial(keyword, changed=()), event_id=""), ""),
        (functools.partial(Audit().wrapped, sender=None), "changed"),
        (print, ""),
        (object(), ""),
        ("text", ""),
    ],
)
def test_a_receiver_gets_what_it_names(function, names):
    assert named_extras(function) == set(names.split())
