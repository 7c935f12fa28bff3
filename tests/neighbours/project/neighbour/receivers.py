"""Every model-signal receiver of the installed packages is disconnected and declared critical.

The packages' own tests then run with critical receivers in place of the ones that they connected.
"""

import weakref

from django.apps import apps
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

import bulksafe

_SIGNALS = [pre_save, post_save, pre_delete, post_delete, m2m_changed]


def _make_all_critical():
    senders = {id(model): model for model in _models()}
    for signal in _SIGNALS:
        for (uid, sender), function in _connected(signal):
            model = senders.get(sender)
            assert model is not None or sender == id(None), f"{function} has an unknown sender"
            given_uid = None if uid == _identity(function) else uid
            assert signal.disconnect(function, sender=model, dispatch_uid=given_uid)
            bulksafe.critical(
                signal,
                sender=model or _models_with_tables(signal),
                dispatch_uid=given_uid,
                app_label="neighbour",
            )(function)


def _models():
    return apps.get_models(include_auto_created=True, include_swapped=True)


def _models_with_tables(signal):
    """What a receiver without a sender stands for; a critical one has to name its models."""
    return [
        model
        for model in _models()
        if model._meta.managed
        and not model._meta.swapped
        and not model._meta.proxy
        and bool(model._meta.auto_created) == (signal is m2m_changed)
    ]


def _connected(signal):
    """The receivers that are connected to a signal, with the key that Django keeps for each."""
    for key, held, *_ in list(signal.receivers):
        function = held() if isinstance(held, weakref.ReferenceType) else held
        if function is not None:
            yield key, function


def _identity(function):
    """As Django's dispatcher identifies a receiver without a dispatch_uid."""
    if hasattr(function, "__func__"):
        return id(function.__self__), id(function.__func__)
    return id(function)


_make_all_critical()
