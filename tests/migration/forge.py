"""Runs management commands, each in a process of its own, without paying the imports each time.

This process imports Django and the drivers, configures nothing, and forks a child for every command
line that it reads: a child sees exactly what ``python manage.py …`` would see. One JSON object a
line comes in (``argv``, ``directory``, ``environment``, ``input``), one a line goes out (``code``,
``stdout``, ``stderr``).
"""

import gc
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

import django.core.management.commands.makemigrations
import django.core.management.commands.migrate
import django.db.backends.postgresql.base
import django.db.migrations.autodetector
import django.middleware.csrf
import django.utils.log
import django.views.csrf
import django.views.debug
import django.views.generic
import psycopg  # noqa: F401

import bulksafe.planning.autodetection
import bulksafe.syncdb
import bulksafe.validation
import bulksafe.writer.paths  # noqa: F401


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(request: dict) -> dict:
    with (
        tempfile.TemporaryFile("w+") as stdin,
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
    ):
        stdin.write(request["input"])
        stdin.seek(0)
        child = os.fork()
        if not child:
            for number, file in enumerate((stdin, stdout, stderr)):
                os.dup2(file.fileno(), number)
            os._exit(_manage(request))
        _, status = os.waitpid(child, 0)
        stdout.seek(0)
        stderr.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "stdout": stdout.read(),
            "stderr": stderr.read(),
        }


def _manage(request: dict) -> int:
    """What ``manage.py`` does, to the exit code that its process would have."""
    os.chdir(request["directory"])
    os.environ.update(request["environment"])
    sys.path.insert(0, request["directory"])
    sys.stdin = os.fdopen(0, "r", closefd=False)
    code = 0
    try:
        django.core.management.execute_from_command_line([str(Path("manage.py")), *request["argv"]])
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
