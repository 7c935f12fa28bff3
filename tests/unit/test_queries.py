"""The run-time queries: how the files are read, and that every query is used."""

import re
from pathlib import Path

import pytest

import bulksafe
from bulksafe.outbox.queries import query

PACKAGE = Path(bulksafe.__file__).parent
NAMES = [
    name
    for path in sorted((PACKAGE / "sql").glob("*.sql"))
    for name in re.findall(r"^-- name: (.*)$", path.read_text(), re.MULTILINE)
]


def test_no_name_is_given_twice():
    assert len(set(NAMES)) == len(NAMES) > 30


@pytest.mark.parametrize("name", NAMES)
def test_a_query_is_read_without_its_comments(name):
    text = query(name)

    assert text == text.strip() != ""
    assert not re.search(r"^\s*--", text, re.MULTILINE)


def test_every_query_is_run():
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    sql = "\n".join(path.read_text() for path in (PACKAGE / "sql").glob("*.sql"))

    unused = [n for n in NAMES if f'"{n}"' not in code and f"{{query:{n}}}" not in sql]
    assert unused == []


def test_a_query_has_the_text_of_its_parts():
    assert query("work") in query("claim")
    assert query("work") in query("ready")
    assert not [name for name in NAMES if "{query:" in query(name)]


def test_unfilled_placeholders_are_left_to_the_caller():
    assert "{unlimited}" in query("claim")
    assert "{selection}" in query("retry")


def test_an_unknown_name_is_an_error():
    with pytest.raises(KeyError):
        query("no_such_query")


def test_a_placeholder_may_have_the_name_of_a_query():
    assert "home" in NAMES
    assert "{home}.bulksafe_take" in query("discard_buffered")
