"""The models of one side. Labels of related models are resolved in their own app."""

from __future__ import annotations

from types import SimpleNamespace

from django.apps import apps

from tests.apps.pairs.definitions import accounts, basics, pages, shop


def define(label: str) -> None:
    """Create the classes of one side, under the app's label."""
    for module in (basics, accounts, pages, shop):
        module.define(label)


def side(label: str) -> SimpleNamespace:
    """The models of one side by name, and its ``label``."""
    return SimpleNamespace(label=label, **{m.__name__: m for m in apps.all_models[label].values()})
