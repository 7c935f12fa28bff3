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

_REPOSITORY = Path(__file__).parents[2]

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


def run_suite(suite, run, tell):
    """Run the suite one way, and return the outcome of each test by its id.

    Args:
        suite: what is run.
        run: which way.
        tell: called with the number of outcomes every now and then.

    Raises:
        SuiteError: a process did not get to its end, or bulksafe was active where it is not meant
            to be, or the other way round.
    """
    outcomes = suite.directory / f"{run.name.replace(' ', '-')}.jsonl"
    outcomes.write_text("")
    log = outcomes.with_suffix(".log")
    log.write_text("")
    for group in suite.groups:
        with log.open("a") as output:
            process = _start(suite, run, group, outcomes, output)
            _wait(process, lambda: tell(outcomes.read_bytes().count(b"\n")))
        if '"is_finished"' not in outcomes.read_text().rpartition("\n{")[2]:
            said = "\n".join(log.read_text().strip().splitlines()[-_LINES_OF_LOG:])
            raise SuiteError(f"The run {run.name} did not get to its end:\n{said}")
    return _read(run, outcomes)


def _start(suite, run, labels, outcomes, output):
    command = [sys.executable, "runtests.py", "--noinput", "--parallel", str(suite.processes)]
    return subprocess.Popen(
        [*command, "--settings", run.settings, *labels],
        cwd=suite.tests,
        env=_environment(suite.url, outcomes),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _environment(url, outcomes):
    return {
        **os.environ,
        "DATABASE_URL": url,
        VARIABLE: str(outcomes),
        "PYTHONPATH": str(_REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


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
