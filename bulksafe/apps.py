"""Wires the layers into Django when the project starts."""

from __future__ import annotations

# Makes Meta.triggers known to Django before the first model is imported, whatever the order of
# INSTALLED_APPS.
import pgtrigger.apps  # noqa: F401
from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate, pre_migrate
from django.utils.module_loading import autodiscover_modules

from bulksafe import conf, declarations, patches, syncdb
from bulksafe.declarations import capture, receivers
from bulksafe.exceptions import InvariantViolation
from bulksafe.patches import signals

patches.apply_early()


class BulksafeConfig(AppConfig):
    name = "bulksafe"
    verbose_name = "bulksafe"

    def ready(self) -> None:
        # No receivers.py: importing one would also connect plain receivers that its app
        # deliberately does not connect.
        autodiscover_modules("invariants", *conf.get().DISCOVER)
        capture.attach_all()
        signals.connect_all()
        receivers.listeners.append(signals.connect_critical)
        InvariantViolation.declaration = staticmethod(declarations.find)
        patches.apply()
        # pgtrigger has a models module and so gets one signal for each migrate; bulksafe has none.
        sender = apps.app_configs.get("pgtrigger")
        for signal, receiver in (
            (pre_migrate, syncdb.refuse_to_lose_events),
            (pre_migrate, syncdb.refuse_unknown_roles),
            (pre_migrate, syncdb.create_outbox),
            (post_migrate, syncdb.install_missing),
            (post_migrate, syncdb.settle_privileges),
            (post_migrate, syncdb.create_cursors),
            (post_migrate, syncdb.note_receivers),
            (post_migrate, syncdb.limit_violations),
        ):
            name = f"bulksafe.{receiver.__name__}"
            signal.connect(receiver, sender=sender, dispatch_uid=name)
