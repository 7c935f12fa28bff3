"""The README, followed from top to bottom in an empty folder: each command prints what it shows."""

import doctest
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.wheel import CHECKOUT, clean_environment, python, wheel

__all__ = ["python", "wheel"]  # the fixtures

pytestmark = pytest.mark.once

DATABASE = "bulksafe_tour"
INSTALL = ["pip", "install", "bulksafe", "psycopg[binary]"]
SHELL = "python manage.py shell"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: The time and the process of a log line.
LOGGED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \d+ ", re.MULTILINE)

#: Runs the examples that a file holds as the interactive shell would.
EXAMPLES = """
import doctest, sys
text = open({path!r}).read()
test = doctest.DocTestParser().get_doctest(text, {{}}, "README.md", "README.md", 0)
sys.exit(doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed > 0)
"""


@dataclass(frozen=True)
class Command:
    """A line after a "$ ", and what the README shows after it."""

    text: str
    shown: str


def blocks():
    return BLOCK.findall((CHECKOUT / "README.md").read_text())


def commands(block):
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        text, _, shown = part.partition("\n")
        yield Command(text, shown)


class Reader:
    """Follows the README in a folder of its own, with a database of its own."""

    def __init__(self, folder, scratch, environment, database):
        self.folder = folder
        self.scratch = scratch
        self.environment = environment
        self.database = database
        self.from_above = []

    def save(self, block):
        """Write the file that the first line names, or append to it.

        The first example comes before the command that creates its folder: "save … from above".
        """
        if not self.path(block).parent.exists():
            self.from_above.append(block)
            return
        for each in (*self.from_above, block):
            self.write(each)
        self.from_above.clear()

    def path(self, block):
        name, _, where = block.partition("\n")[0].removeprefix("# ").partition(", ")
        assert where in {"", "at the end"}
        return self.folder / name

    def write(self, block):
        first, _, text = block.partition("\n")
        path = self.path(block)
        before = path.read_text() if first.endswith(", at the end") else ""
        path.write_text(before + text.replace(DATABASE, self.database))

    def follow(self, command):
        """Run a command and compare what it prints."""
        if command.text.startswith("pip "):
            # The fixture has installed the wheel; its dependencies are in this environment.
            assert shlex.split(command.text) == INSTALL
            return
        if command.text == SHELL:
            self.type_into_shell(command.shown)
            return
        printed = self.run(command.text.replace(DATABASE, self.database))
        wanted = LOGGED.sub("... ", command.shown)
        assert doctest.OutputChecker().check_output(wanted, printed, doctest.ELLIPSIS), (
            f"$ {command.text}\n-- The README shows:\n{command.shown}-- It prints:\n{printed}"
        )

    def type_into_shell(self, examples):
        assert examples.startswith(">>> ")
        path = self.scratch / "examples.txt"
        path.write_text(examples)
        code = EXAMPLES.format(path=str(path))
        printed = self.run(f"{SHELL} --verbosity 0 --command {shlex.quote(code)}")
        assert printed == "", printed

    def run(self, command):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        return done.stdout


@pytest.fixture
def reader(python, postgres, tmp_path):
    folder, database = tmp_path / "empty", f"{DATABASE}_{uuid4().hex}"
    folder.mkdir()
    server = conninfo_to_dict(postgres.url)
    variables = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    path = os.pathsep.join([str(python.parent), str(postgres.bin), os.environ["PATH"]])
    environment = {
        **clean_environment(),
        **{name: str(server[key]) for key, name in variables.items() if key in server},
        "PATH": path,
        "LC_MESSAGES": "C",
    }
    yield Reader(folder, tmp_path, environment, database)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database}")


def test_the_readme_prints_what_it_shows(reader):
    for language, block in blocks():
        if language == "python":
            reader.save(block)
        else:
            assert language == "console"
            for command in commands(block):
                reader.follow(command)


def test_the_readme_is_read():
    """Guards the test above against a README that its patterns do not match."""
    shown = [command for language, block in blocks() for command in commands(block)]

    assert len(shown) > 10
    assert sum(bool(command.shown) for command in shown) >= 5


def test_a_difference_is_found(reader):
    reader.follow(Command("echo 2026-11-30 12:44:50,124 16367 INFO listening", "... listening\n"))

    with pytest.raises(AssertionError, match=r"It prints:\s+ready"):
        reader.follow(Command("echo ready", "listening\n"))
    assert reader.run("python -m django startproject mysite .") == ""
    with pytest.raises(AssertionError, match="Got nothing"):
        reader.type_into_shell(">>> None\n3\n")
