from django.apps import AppConfig


class InlineBenchmarksConfig(AppConfig):
    name = "benchmarks.inline"
    label = "inlining"

    def ready(self):
        # Declared like a project's receivers: when the models are there.
        from benchmarks.inline import receivers  # noqa: F401, PLC0415
