"""Two runs of a package's tests: with its own receivers, and with the same made critical."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.django_suite.comparing import Difference, differences
from tests.django_suite.errors import SuiteError
from tests.django_suite.running import REPOSITORY, Outcome, Run, run_commands

_PROJECT = Path(__file__).parent / "project"
_LINES_OF_LOG = 15


@dataclass(frozen=True)
class Setting:
    """What both runs of a package have in common.

    Attributes:
        package: whose tests are run.
        python: the interpreter that has it.
        source: the directory of its source: its tests read files that lie there.
        url: of the server.
        directory: where the project and what the runs write are put.
        processes: how many at a time.
    """

    package: object
    python: Path
    source: Path
    url: str
    directory: Path
    processes: int

    @property
    def project(self):
        return self.directory / "project"

    def files(self, run):
        return self.directory / run.name.replace(" ", "-")

    def command(self, *arguments):
        return [str(self.python), "-m", "django", *arguments]

    def environment(self, run):
        path = [self.project, self.source, REPOSITORY]
        return {
            "DATABASE_URL": self.url,
            "DJANGO_SETTINGS_MODULE": run.settings,
            "NEIGHBOURS_RUN": "critical" if run.is_active else "plain",
            "NEIGHBOURS_FILES": str(self.files(run)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, path)),
        }


def runs_of(package):
    """The run with the package's own receivers, and the one with critical receivers."""
    settings = package.settings
    return (
        Run("own receivers", settings, is_active=False),
        Run("critical receivers", settings, is_active=True, has_captures=True),
    )


def write_project(setting):
    """Write the project, with the migrations of the app that makes the receivers critical.

    Returns:
        how many tables get a capture trigger.

    Raises:
        SuiteError: makemigrations has failed, or finds something to do right after it was run.
    """
    shutil.rmtree(setting.directory, ignore_errors=True)
    shutil.copytree(_PROJECT, setting.project, ignore=shutil.ignore_patterns("__pycache__"))
    plain, critical = runs_of(setting.package)
    for run in (plain, critical):
        setting.files(run).mkdir()
    made = _manage(setting, critical, "makemigrations", "neighbour")
    _manage(setting, critical, "makemigrations", "neighbour", "--check")
    return made.count("Create trigger bulksafe_capture")


def _manage(setting, run, *arguments):
    done = subprocess.run(
        setting.command(*arguments),
        cwd=setting.project,
        env={**os.environ, **setting.environment(run)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-_LINES_OF_LOG:])
        raise SuiteError(f"“manage.py {' '.join(arguments)}” has failed. It says:\n{said}")
    return done.stdout


def run_tests(setting, run, report):
    """The outcome of each test by its id; the arguments and errors are those of run_commands."""
    options = ["test", "--noinput"]
    if setting.processes > 1:
        options += ["--parallel", str(setting.processes)]
    commands = [setting.command(*options, *labels) for labels in setting.package.groups]
    return run_commands(
        run,
        commands,
        setting.directory,
        report,
        place=setting.source,
        environment=setting.environment(run),
    )


def compare(setting, before, after, known):
    """The differences between the outcomes, and between what other packages see of the project."""
    return [*_facts_that_differ(setting, known), *differences(before, after, known)]


def _facts_that_differ(setting, known):
    before, after = (
        json.loads((setting.files(run) / "facts.json").read_text())
        for run in runs_of(setting.package)
    )
    for name in before:
        if before[name] != after[name]:
            lost = [f"- {line}" for line in before[name] if line not in after[name]]
            found = [f"+ {line}" for line in after[name] if line not in before[name]]
            detail = "\n".join([*lost, *found]) or "The order differs."
            test = f"{setting.package.name}: {name}"
            yield Difference(test, Outcome("ok"), Outcome("failure", detail), known.get(test, ""))
