from django.apps import AppConfig


class PlainConfig(AppConfig):
    name = "tests.apps.pairs.plain"
    label = "plain"
