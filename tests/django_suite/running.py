"""A run of Django's ``runtests.py``, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tests.django_suite.errors import SuiteError
from tests.django_suite.recording import VARIABLE

REPOSITORY = Path(__file__).parents[2]

#: Of several outcomes that one test has, as its parts may have, the last here counts.
_BY_WEIGHT = ["ok", "skipped", "expected failure", "unexpected success", "failure", "error"]

_SECONDS_BETWEEN_LOOKS = 0.5
_LINES_OF_LOG = 15


@dataclass(frozen=True)
class Outcome:
    """What became of a test: one of the words above, and what it has raised."""

    word: str
    detail: str = ""

    @property
    def is_good(self):
        return self.word in {"ok", "skipped", "expected failure"}


@dataclass(frozen=True)
class Run:
    """One way of running the suite.

    Attributes:
        name: also of the files that it leaves.
        settings: the module of the settings.
        is_active: whether bulksafe is to be active.
        has_captures: whether there are to be tables with critical receivers.
    """

    name: str
    settings: str
    is_active: bool
    has_captures: bool = False

    def is_as_meant(self, abouts):
        """Whether what its processes say of themselves is what they were started for."""
        found = {
            value
            for about in abouts
            for value in (about["is_installed"], about["is_patched"], *about["has_tables"].values())
        }
        captures = [value for about in abouts for value in about["has_captures"].values()]
        return found == {self.is_active} and (not captures or any(captures) == self.has_captures)


_ORDINARY = Run("with receivers", "tests.django_suite.settings_ordinary", is_active=False)
_CRITICAL = Run(
    "with critical ones",
    "tests.django_suite.settings_critical",
    is_active=True,
    has_captures=True,
)
_ROWS = replace(_CRITICAL, settings="tests.django_suite.settings_critical_rows")

#: Django as it is, and with bulksafe.
PLAIN = (
    Run("without bulksafe", "tests.django_suite.settings", is_active=False),
    Run("with bulksafe", "tests.django_suite.settings_bulksafe", is_active=True),
)
#: The same, where each model has a receiver that does nothing, by what it asks for.
RECEIVERS = {"instances": (_ORDINARY, _CRITICAL), "rows": (_ORDINARY, _ROWS)}


@dataclass(frozen=True)
class Suite:
    """What is run, and where.

    Attributes:
        tests: the directory of runtests.py.
        groups: what it is to run; it is started once for each group.
        url: of the server.
        directory: where what the runs write is put.
        processes: how many at a time.
    """

    tests: Path
    groups: list[list[str]]
    url: str
    directory: Path
    processes: int


def run_suite(suite, run, report):
    """Run the suite one way, and return the outcome of each test by its id; as ``run_commands``."""
    command = [sys.executable, "runtests.py", "--noinput", "--parallel", str(suite.processes)]
    commands = [[*command, "--settings", run.settings, *labels] for labels in suite.groups]
    environment = {"DATABASE_URL": suite.url, "PYTHONPATH": str(REPOSITORY)}
    return run_commands(
        run, commands, suite.directory, report, place=suite.tests, environment=environment
    )


def run_commands(run, commands, directory, report, *, place, environment):
    """Run tests in processes of their own, and return the outcome of each test by its id.

    Args:
        run: which way.
        commands: what is started, one after the other; each uses ``recording.Runner``.
        directory: where the outcomes and the log are put.
        report: called with the number of outcomes every now and then.
        place: the directory in which they are started.
        environment: variables besides those of this process.

    Raises:
        SuiteError: a process did not get to its end, or bulksafe was active where it is not meant
            to be, or the other way round.
    """
    outcomes = directory / f"{run.name.replace(' ', '-')}.jsonl"
    outcomes.write_text("")
    log = outcomes.with_suffix(".log")
    log.write_text("")
    variables = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
        VARIABLE: str(outcomes),
    }
    for command in commands:
        with log.open("a") as output:
            process = _start(command, place, variables, output)
            _wait(process, lambda: report(outcomes.read_bytes().count(b"\n")))
        if '"is_finished"' not in outcomes.read_text().rpartition("\n{")[2]:
            said = "\n".join(log.read_text().strip().splitlines()[-_LINES_OF_LOG:])
            raise SuiteError(f"The run {run.name} did not get to its end:\n{said}")
    return _read(run, outcomes)


def _start(command, place, environment, output):
    return subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait(process, look):
    """Until its end; where that is not waited for, its own processes are not left behind."""
    try:
        while True:
            try:
                process.wait(_SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                look()
            else:
                return
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise


def _read(run, outcomes):
    lines = [json.loads(line) for line in outcomes.read_text().splitlines()]
    abouts = [line["about"] for line in lines if "about" in line]
    if not run.is_as_meant(abouts):
        raise SuiteError(f"This was no run {run.name}, and says nothing: {abouts}")
    return _worst_by_test(line for line in lines if "test" in line)


def _worst_by_test(lines):
    found = {}
    for line in lines:
        outcome = Outcome(line["outcome"], line.get("detail", ""))
        known = found.get(line["test"])
        if known is None or _weight(outcome) > _weight(known):
            found[line["test"]] = outcome
    return found


def _weight(outcome):
    return _BY_WEIGHT.index(outcome.word)
