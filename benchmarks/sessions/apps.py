from django.apps import AppConfig


class SessionsBenchmarksConfig(AppConfig):
    name = "benchmarks.sessions"
    label = "sessions_measured"

    def ready(self):
        # Declared like a project's receivers: when the models are there.
        from benchmarks.sessions import receivers  # noqa: F401, PLC0415
