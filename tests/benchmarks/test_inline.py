"""The benchmark of receivers in the writer's transaction runs and measures every variant."""

import json

import pytest

from benchmarks.inline.plan import SECTIONS
from tests.benchmarks.running import python

pytestmark = pytest.mark.once

#: What a section holds against what, in the order of the tables.
SUBJECTS = {
    "a": "save() of each row, plain receiver ÷ critical receiver",
    "b": "critical receiver ÷ loop by hand",
    "c": "critical receiver ÷ plain receiver",
    "d": "watched ÷ without the watch and the patches",
    "e": "critical receiver ÷ plain receiver",
    "f": "critical receiver ÷ save() of each row, plain receiver",
}


SETTINGS = "benchmarks.inline.settings"


@pytest.fixture(scope="module")
def measured(postgres, tmp_path_factory):
    """One tiny run, as (what it printed, what it wrote as JSON, what it wrote as Markdown)."""
    directory = tmp_path_factory.mktemp("benchmarks")
    files = directory / "results.json", directory / "results.md"
    script = f"""
import sys
from dataclasses import replace
from benchmarks.inline import __main__ as command
command.QUICK = replace(command.QUICK, rows=20, saves=20, statements=50)
sys.exit(command.main(["--quick", "--rounds=2", "--json={files[0]}", "--markdown={files[1]}"]))
"""
    done = python(postgres, SETTINGS, "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(files[0].read_text()), files[1].read_text()


def test_every_section_is_measured_in_every_round(measured):
    found = measured[1]["values"]

    assert {one["section"] for one in found} == set(SECTIONS)
    assert all(len(one["rounds"]) == 2 and min(one["rounds"]) > 0 for one in found)


def test_every_section_has_an_aim_and_its_own_noise(measured):
    for section, subject in SUBJECTS.items():
        listed = [one for one in measured[1]["comparisons"] if one["section"] == section]
        aimed = [one for one in listed if one["aim"]]

        assert {one["subject"] for one in aimed} == {subject}
        assert all(one["verdict"] in {"reached", "missed"} for one in aimed)
        compared = [one["measure"] for one in listed if one["subject"] == subject]
        noise = [one["measure"] for one in listed if one["subject"].startswith("noise: ")]
        assert noise == compared


def test_output_shows_each_section_and_the_environment(measured):
    printed, written, markdown = measured

    assert "Each receiver was seen to refuse bad rows" in printed
    assert f"PostgreSQL {written['environment']['postgresql']}" in printed
    for title in SECTIONS.values():
        assert f"**{title}: 2 rounds**" in markdown
    assert "| bulk_create(), post_save | critical receiver ÷ loop by hand | ≤ 1.2 |" in markdown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("post_save.disconnect(sender=SignalAfter)", "nothing"),
        (
            "post_save.receivers.clear(); post_save.sender_receivers_cache.clear()",
            "CriticalAfter let pass a bad bulk_create().",
        ),
    ],
)
def test_a_receiver_that_is_not_called_stops_the_run(postgres, change, said):
    script = f"""
import django
django.setup()
from django.db.models.signals import post_save
from benchmarks.database import fresh_database, migrate
from benchmarks.inline import proof
from benchmarks.inline.models import SignalAfter
with fresh_database("embedded"):
    migrate()
    {change}
    proof.prove()
    print("nothing")
"""
    done = python(postgres, SETTINGS, "-c", script)

    assert said in done.stdout + done.stderr


def test_without_the_watch_django_is_itself_and_afterwards_bulksafe_is_back(postgres):
    script = """
import django
django.setup()
from django.db import connection
from django.db.models import Model, QuerySet
from benchmarks.inline import elsewhere
from bulksafe.writer.watch import Watch

def watched():
    return [isinstance(wrapper, Watch) for wrapper in connection.execute_wrappers].count(True)

def patched():
    return [hasattr(method, "_bulksafe_applied") for method in (Model.save_base, QuerySet.update)]

connection.ensure_connection()
before = list(connection.execute_wrappers)
assert (watched(), patched()) == (1, [True, True])
with elsewhere.unwatched():
    assert (watched(), patched()) == (0, [False, False])
    assert connection.execute_wrappers
with elsewhere.bare():
    assert connection.execute_wrappers == []
assert connection.execute_wrappers == before
assert patched() == [True, True]
"""
    done = python(postgres, SETTINGS, "-c", f"{_ON_THE_SERVER_OF_THE_TESTS}{script}")

    assert done.returncode == 0, done.stderr


_ON_THE_SERVER_OF_THE_TESTS = """
import os
from django.conf import settings
from examples import server
settings.DATABASES["default"].update(server.database_settings(os.environ["DATABASE_URL"]))
"""
