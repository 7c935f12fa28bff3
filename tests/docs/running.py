"""Run the blocks of a page as a reader would, on a project and a database."""

import configparser
import doctest
import re
import shlex
import subprocess
import sys

import yaml

from examples import server
from tests.docs.snippets import OPTIONS
from tests.migration.project import environment

_FILE = re.compile(r"# ([\w/]+\.py)(.*)\n")
_CHECKER = doctest.OutputChecker()

#: What differs in each run.
_VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+)?"), "TIME"),
    (re.compile(r"INFO|(?<=TIME )\d+ "), ""),
    (re.compile(r"\b[\w.-]+:\d{2,}(?= for )"), "HOST:PID"),
]


class Reader:
    """Does what a page says, block by block."""

    def __init__(self, project, postgres):
        self.project = project
        self.postgres = postgres

    def run(self, block):
        getattr(self, f"_{block.language}")(block)

    def _python(self, block):
        named = _FILE.match(block.text)
        if named is None:
            self._shell("run_python", block)
        elif named[1] == "settings.py":
            self.project.extra_settings += block.text
        else:
            self._write(named[1], block.text, added=bool(named[2]))

    def _write(self, path, text, *, added):
        target = self.project.directory / path
        before = target.read_text() + "\n\n" if added else ""
        self.project.write(path, before + text)

    def _pycon(self, block):
        self._shell("run_session", block)

    def _shell(self, function, block):
        call = f"{function}({block.text!r}, {str(block)!r})"
        code = f"from tests.docs.snippets import {function}\n{call}"
        result = self.project.manage("shell", "-v", "0", "-c", code, code=None)
        assert result.code == 0, f"{block}: {result.output}"

    def _sql(self, block):
        result = self._psql_process("-c", f"BEGIN; {block.text}; ROLLBACK")
        assert result.returncode == 0, f"{block}: {result.stderr}"

    def _yaml(self, block):
        assert yaml.safe_load(block.text), block

    def _ini(self, block):
        parser = configparser.ConfigParser(strict=False)
        parser.optionxform = str
        parser.read_string(block.text)
        assert parser.sections(), block

    def _console(self, block):
        for command, expected in _commands(block.text):
            for one in command.split(" && "):
                code, output = self._execute(shlex.split(one, comments=True), block)
            allowed = (0, 1) if "bulksafe" in command or "ERROR" in expected else (0,)
            assert code in allowed, f"{block}: {command}\n{output}"
            if expected:
                _compare(block, command, expected, output)

    def _execute(self, words, block):
        match words:
            case ["python", "manage.py", *arguments]:
                return self._manage(arguments)
            case ["psql", "shop", *arguments]:
                result = self._psql_process(*arguments)
            case ["pytest", *arguments]:
                result = self._process(sys.executable, "-m", "pytest", *arguments)
            case ["pip", "install", *_]:
                return 0, ""
            case _:
                raise AssertionError(f"{block}: nothing runs “{shlex.join(words)}”")
        return result.returncode, result.stdout + result.stderr

    def _manage(self, arguments):
        if arguments[:2] == ["bulksafe", "listen"] and "--once" not in arguments:
            arguments = [*arguments, "--once"]  # it would run until it is stopped
        result = self.project.manage(*arguments, code=None)
        return result.code, result.stdout + result.stderr

    def _psql_process(self, *arguments):
        url = server.database_url(self.project.aliases["default"])
        # An error ends psql with 1 where -c gives the statement.
        return self._process(str(self.postgres.bin / "psql"), "-X", url, *arguments)

    def _process(self, *command):
        return subprocess.run(
            command,
            cwd=self.project.directory,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def _commands(text):
    """The commands of a console session, each with the output that is shown."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def _compare(block, command, expected, output):
    want, got = _steady(expected), _steady(output)
    if " bulksafe listen" in command:
        # The log and the receivers write to two streams.
        missing = set(want.splitlines()) - set(got.splitlines())
        assert not missing, f"{block}: {command}\n{missing} not in\n{output}"
    else:
        message = f"{block}: {command}\nexpected:\n{expected}\ngot:\n{output}"
        assert _CHECKER.check_output(want, got, OPTIONS), message


def _steady(text):
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text
