"""Wires the layers into Django when the project starts."""

from __future__ import annotations

# Makes Meta.triggers known to Django before the first model is imported, whatever the order of
# INSTALLED_APPS.
import pgtrigger.apps  # noqa: F401
from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules

from bulksafe import checks, declarations, patches  # noqa: F401  (checks registers itself)
from bulksafe.exceptions import InvariantViolation


class BulksafeConfig(AppConfig):
    name = "bulksafe"
    verbose_name = "bulksafe"

    def ready(self) -> None:
        autodiscover_modules("invariants", "signals", "receivers")
        InvariantViolation.declared_message = staticmethod(_declared_message)
        patches.apply()


def _declared_message(label: str) -> object:
    for item in declarations.declared():
        if item.label == label:
            return item.invariant.message
    return None
