from importlib import import_module

from django.apps import AppConfig


class IsolationConfig(AppConfig):
    name = "benchmarks.isolation"

    def ready(self):
        import_module("benchmarks.isolation.receivers")
