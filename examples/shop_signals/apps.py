from importlib import import_module

from django.apps import AppConfig


class ShopSignalsConfig(AppConfig):
    name = "examples.shop_signals"
    label = "shop_signals"
    verbose_name = "Shop with signals"

    def ready(self):
        import_module("examples.shop_signals.receivers")
