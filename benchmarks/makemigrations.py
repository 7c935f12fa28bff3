"""How long ``makemigrations`` takes: ``python -m benchmarks.makemigrations``."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.options import positive

EXAMPLES = """\
examples:
  python -m benchmarks.makemigrations                190 models with three receivers each
  python -m benchmarks.makemigrations --models 20    a first look

The same models are measured without bulksafe, in turn. Times are of the CPU: the smallest of all
rounds. The sizes of both migrations say how many bytes a captured table takes.

exit status: 0 measured, 2 a command failed
"""

SETTINGS = """
SECRET_KEY = "-"
INSTALLED_APPS = [{installed} "app"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "-", "HOST": "/-"}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""
APP = """
from django.apps import AppConfig

class Config(AppConfig):
    name = "app"

    def ready(self):
        import app.receivers
"""
MODEL = """
class Model{number}(models.Model):
    name = models.CharField(max_length=50)
    text = models.TextField()
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    at = models.DateTimeField(null=True)
    data = models.JSONField(default=dict)
    before = models.ForeignKey("Model{before}", models.CASCADE, null=True)
"""
RECEIVERS = """
from bulksafe import critical
from django.apps import apps
from django.db.models.signals import post_delete, post_save, pre_save

def receiver(**kwargs):
    pass

for model in apps.get_app_config("app").get_models():
    for signal in (pre_save, post_save, post_delete):
        critical(signal, sender=model)(receiver)
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""


class Project:
    """Many models, with or without receivers.

    Args:
        directory: a new one.
        models: how many.
    """

    def __init__(self, directory: Path, models: int, *, with_bulksafe: bool) -> None:
        self._directory = directory
        self._write("app/migrations/__init__.py", "")
        self._write("app/__init__.py", "")
        listed = [MODEL.format(number=n, before=max(n - 1, 0)) for n in range(models)]
        self._write("app/models.py", "from django.db import models\n" + "".join(listed))
        self._write("app/apps.py", APP)
        self._write("app/receivers.py", RECEIVERS if with_bulksafe else "")
        installed = '"pgtrigger", "bulksafe",' if with_bulksafe else ""
        self._write("settings.py", SETTINGS.format(installed=installed))
        self._write("manage.py", MANAGE)

    def seconds(self, *command: str) -> float:
        """CPU time of a management command.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        before = _cpu()
        subprocess.run(
            [sys.executable, "-W", "ignore", "manage.py", *command],
            cwd=self._directory,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            check=True,
            capture_output=True,
        )
        return _cpu() - before

    def made(self) -> float:
        """CPU time of ``makemigrations``, which leaves its files behind."""
        for path in self._migrations():
            path.unlink()
        return self.seconds("makemigrations", "app")

    def size(self) -> int:
        """The bytes of the migrations."""
        return sum(path.stat().st_size for path in self._migrations())

    def _migrations(self) -> list[Path]:
        return list((self._directory / "app/migrations").glob("0*.py"))

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when all was measured, and 2 if a command failed."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    with tempfile.TemporaryDirectory() as directory, Progress(console=console) as progress:
        projects = {
            name: Project(Path(directory) / name, options.models, with_bulksafe=name == "with")
            for name in ("without", "with")
        }
        times: dict[tuple[str, str], list[float]] = {}
        step = progress.add_task("measuring", total=options.rounds * 4)
        try:
            for _ in range(options.rounds):
                for name, project in projects.items():
                    times.setdefault((name, "check"), []).append(project.seconds("check"))
                    progress.advance(step)
                    times.setdefault((name, "makemigrations"), []).append(project.made())
                    progress.advance(step)
        except subprocess.CalledProcessError as error:
            Console(stderr=True).print(f"error: {error}\n{error.stderr.decode()}", markup=False)
            return 2
        sizes = {name: project.size() for name, project in projects.items()}
    best = {key: min(found) for key, found in times.items()}
    table = Table("command", "without, s", "with, s", "ratio")
    for command in ("check", "makemigrations"):
        pair = [best[name, command] for name in projects]
        table.add_row(command, *(f"{one:.2f}" for one in pair), f"{pair[1] / pair[0]:.2f}")
    both = [best[name, "check"] + best[name, "makemigrations"] for name in projects]
    table.add_row("both", *(f"{one:.2f}" for one in both), f"{both[1] / both[0]:.2f}")
    console.print(table)
    each = (sizes["with"] - sizes["without"]) / options.models
    console.print(f"{each:.0f} bytes of migration for each captured table", highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.makemigrations",
        description="Measure makemigrations and check with critical receivers on every model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=positive, default=190, metavar="N")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
