from django.apps import AppConfig


class CriticalConfig(AppConfig):
    name = "tests.apps.pairs.critical"
    label = "critical"
