from django.apps import AppConfig


class ListenerBenchmarksConfig(AppConfig):
    name = "benchmarks.listener"
    label = "listening"

    def ready(self):
        # Declared like a project's receivers: when the models are there.
        from benchmarks.listener import receivers  # noqa: F401, PLC0415
