"""A run of the benchmark of rules measures what it says. No test looks at a time."""

import json

import pytest

from benchmarks import comparing, variants
from tests.benchmarks.running import python

pytestmark = pytest.mark.once

ALL = ["discount", "initial", "net", "number", "shipped", "status"]


SETTINGS = "benchmarks.settings"


@pytest.fixture(scope="module")
def measured(postgres, tmp_path_factory):
    """One tiny run, as (what it printed, what it wrote as JSON, what it wrote as Markdown)."""
    directory = tmp_path_factory.mktemp("benchmarks")
    files = directory / "results.json", directory / "results.md"
    tiny = ["--rows", "20,40", "--rounds", "2"]
    written = ["--json", str(files[0]), "--markdown", str(files[1])]
    done = python(postgres, SETTINGS, "-m", "benchmarks", *tiny, *written)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(files[0].read_text()), files[1].read_text()


def test_each_variant_refuses_what_it_should(measured):
    assert measured[1]["kept_rules"] == {
        "none": [],
        "none-again": [],
        "bulksafe": ALL,
        "bulksafe-checks": ["discount", "initial", "number", "shipped", "status"],
        "bulksafe-observed": [],
        "only-discount": ["discount"],
        "only-shipped": ["shipped"],
        "only-net": ["net"],
        "only-number": ["number"],
        "only-status": ["initial", "status"],
        "hand-functions": ALL,
        "hand-conditions": ALL,
        "hand-one-function": ALL,
        "hand-after": ALL,
        "signals": ALL,
    }


def test_every_variant_is_measured_at_every_size_and_in_every_round(measured):
    rounds = {
        (one["rows"], one["operation"], one["variant"]): one["rounds"]
        for one in measured[1]["seconds_per_row"]
    }
    bulk = {v.key for v in variants.VARIANTS if not v.per_row}
    expected = {(r, o, v) for r in (20, 40) for o in variants.BULK_OPERATIONS for v in bulk}
    expected |= {(r, o, "signals") for r in (20, 40) for o in ("save-insert", "save-update")}
    assert rounds.keys() == expected
    assert all(len(times) == 2 and min(times) > 0 for times in rounds.values())


def test_output_shows_each_section_and_the_environment(measured):
    printed, written, markdown = measured
    for section in comparing.SECTIONS.values():
        assert section in printed
        assert f"**{section}**" in markdown
    assert f"PostgreSQL {written['environment']['postgresql']}" in printed
    assert f"{written['environment']['cpus']} CPUs" in printed


def test_comparisons_in_the_json_file_are_those_in_the_tables(measured):
    found = [one for one in measured[1]["comparisons"] if one["section"] == "c"]
    assert {one["rows"] for one in found} == {20, 40}
    for one in found:
        line = f"| {one['rows']:,} | ≥ 30 | {one['ratio']['middle']:.2f} |"
        assert line in measured[2]


def test_database_of_the_run_is_gone(measured, postgres):
    script = (
        "import os, psycopg; c = psycopg.connect(os.environ['DATABASE_URL']);"
        "print(c.execute(\"SELECT count(*) FROM pg_database WHERE datname ~ 'benchmarks'\")"
        ".fetchone()[0])"
    )
    assert python(postgres, SETTINGS, "-c", script).stdout == "0\n"


@pytest.mark.parametrize(
    ("model", "statement"),
    [
        ("fiveinvariants", "ALTER TABLE {} DISABLE TRIGGER USER"),
        ("handconditions", "ALTER TABLE {} DISABLE TRIGGER USER"),
        ("plain", "ALTER TABLE {} ADD CHECK (discount <= amount)"),
    ],
)
def test_a_variant_with_unexpected_rules_stops_the_run(postgres, model, statement):
    script = f"""
import django
django.setup()
from django.db import connection
from benchmarks import database, proof
with database.fresh_database("embedded"):
    database.create_tables()
    connection.cursor().execute({statement.format("benchmarks_" + model)!r})
    proof.prove()
"""
    done = python(postgres, SETTINGS, "-c", script)
    assert done.returncode == 1
    assert "RuleNotKeptError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "0"], "0 is less than 1"),
        (["--rows", "many"], "invalid _sizes value: 'many'"),
        (["--json", "/no/such/place/file.json"], "there is no directory /no/such/place"),
        (["--quick", "--rows", "5"], "not allowed with"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(postgres, arguments, said):
    done = python(postgres, SETTINGS, "-m", "benchmarks", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_server_that_cannot_be_reached_is_an_error_without_a_traceback(postgres):
    unreachable = "import os; os.environ['DATABASE_URL'] = 'postgresql:///x?host=/nowhere'"
    script = f"{unreachable}\nimport sys\nfrom benchmarks.__main__ import main\n"
    done = python(postgres, SETTINGS, "-c", script + "sys.exit(main(['--quick']))")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
