from importlib import import_module

from django.apps import AppConfig


class CountingConfig(AppConfig):
    name = "tests.listener.counting"

    def ready(self):
        import_module("tests.listener.counting.receivers")
