"""Write ``bulksafe/outbox/own_objects.txt`` again: ``python -m tests.migration.own_objects``.

For changes of the migrations' tables only; read the difference.
"""

import os
from pathlib import Path

import django
from django.conf import settings

from examples import server

HEADER = "# What bulksafe's migrations create. See shape.py, and tests/migration/own_objects.py."


def main():
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    started = server.start("embedded", options=server.THROWAWAY)
    try:
        settings.DATABASES["default"].update(server.database_settings(started.url))
        django.setup()
        from django.core.management import call_command

        from bulksafe.outbox import shape

        # The file that it compares with is the one being written.
        shape.refuse_foreign = lambda using, names: None
        call_command("migrate", verbosity=0, run_syncdb=True)
        pairs = sorted(shape.found("default", "public"))
        lines = [HEADER, *(f"{name}: {part}" for name, part in pairs)]
        path = Path(shape.__file__).with_name("own_objects.txt")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    finally:
        started.stop()


if __name__ == "__main__":
    main()
