"""The documented commands, options, columns and settings match the code."""

import argparse
import inspect
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from django.core.management import CommandError

import bulksafe
from bulksafe.conf import Settings
from bulksafe.management.commands.bulksafe import Command
from bulksafe.management.subcommands import status
from examples.shop.demo.paths import PATHS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:\$ |ExecStart=).*?manage\.py (bulksafe .*?)(?:  +#.*)?$", re.MULTILINE)


def commands():
    for page in PAGES:
        for command in COMMAND.findall(page.read_text()):
            yield pytest.param(command, id=f"{page.name}: {command}")


@pytest.mark.parametrize("command", list(commands()))
def test_the_documented_commands_can_be_parsed(command):
    parser = Command().create_parser("manage.py", "bulksafe")
    try:
        parser.parse_args(shlex.split(command)[1:])
    except CommandError as error:
        pytest.fail(f"{command}: {error}")


def test_commands_are_found():
    assert len(list(commands())) > 15


def test_the_documented_status_has_the_columns_of_the_command():
    text = "".join(page.read_text() for page in PAGES)
    shown = re.findall(r"^queue +atomic .*$", text, re.MULTILINE)

    assert shown
    assert all(tuple(line.split()) == status._HEADER for line in shown)


def test_every_setting_is_documented_with_its_default():
    text = (ROOT / "docs" / "settings.md").read_text()
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", text, re.MULTILINE))

    defaults = {field.name: field.default for field in fields(Settings)}
    as_written = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    assert {key: eval(text) for key, text in documented.items()} == as_written


#: Django's, of each command, and the one that each subcommand takes.
_COMMON = {"--help", "--database", "--verbosity", "--settings", "--pythonpath", "--traceback"}
_COMMON |= {"--no-color", "--force-color", "--skip-checks"}


def subcommands():
    parser = Command().create_parser("manage.py", "bulksafe")
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return found.choices


def section(page, heading):
    text = (ROOT / "docs" / page).read_text()
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def test_each_subcommand_has_a_section():
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)

    assert headings == list(subcommands())


@pytest.mark.parametrize("name", list(subcommands()))
def test_the_documented_options_are_those_of_the_subcommand(name):
    first_cells = re.findall(r"^\| `(.+?)` \| ", section("commands.md", name), re.MULTILINE)
    documented = set(re.findall(r"--[a-z-]+", " ".join(first_cells)))

    known = {text for action in subcommands()[name]._actions for text in action.option_strings}
    assert documented == {text for text in known if text.startswith("--")} - _COMMON


def test_every_option_of_a_receiver_is_documented_with_its_default():
    rows = re.findall(
        r"^\| `(\w+)` \|(?: `(.+?)`)? \|", section("critical.md", "Options"), re.MULTILINE
    )
    documented = {
        name: eval(default) if default else inspect.Parameter.empty for name, default in rows
    }

    found = inspect.signature(bulksafe.critical).parameters.values()
    assert documented == {parameter.name: parameter.default for parameter in found}


def test_every_public_name_is_on_the_page_of_the_api():
    text = (ROOT / "docs" / "api.md").read_text()
    described = re.findall(r"^\.\. (?:auto|py:)\w+:: bulksafe\.([A-Za-z_]+)$", text, re.MULTILINE)

    assert sorted(described) == sorted(bulksafe.__all__)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
def test_relative_links_lead_to_files(page):
    found = re.findall(r"\]\((?!#|\w+:)([^)#]+)", page.read_text())

    assert found
    assert [link for link in found if not (ROOT / link).exists()] == []


def test_the_readme_names_the_versions_of_the_classifiers():
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]

    def ends(prefix):
        found = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith(prefix)]
        return f"{found[0]} to {found[-1]}"

    shown = " ".join((ROOT / "README.md").read_text().split())
    assert f"Django {ends('Framework :: Django :: ')}" in shown
    assert f"Python {ends('Programming Language :: Python :: 3.')}" in shown


def test_the_readme_counts_the_write_paths_of_the_demo():
    assert f"`make demo` compares {len(PATHS)} write paths" in (ROOT / "README.md").read_text()
