from importlib import import_module

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "examples.shop"
    label = "shop"
    verbose_name = "Shop"

    def ready(self):
        import_module("examples.shop.receivers")
