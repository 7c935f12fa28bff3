from django.apps import AppConfig


class BenchmarksConfig(AppConfig):
    name = "benchmarks"
    label = "benchmarks"

    def ready(self):
        from benchmarks import receivers  # noqa: F401, PLC0415
