"""The app, which comes after the packages in ``INSTALLED_APPS``."""

from django.apps import AppConfig


class NeighbourConfig(AppConfig):
    name = "neighbour"

    def ready(self):
        """The packages have connected their receivers by now."""
        from neighbour import receivers  # noqa: F401
