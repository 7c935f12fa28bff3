"""Literals, dollar quotes and ``format()``: what goes in comes out, and ends nothing around it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulksafe.rendering import names, quoting

TEXT = st.lists(
    st.sampled_from(["$", "$$", "$body$", "$body2$", "body", "%", "%s", "'", "\\", '"', "\n", "1"])
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=3),
    max_size=8,
).map("".join)


@given(TEXT)
def test_a_dollar_quoted_text_ends_at_its_own_end_only(text):
    quoted = quoting.dollar_quoted(f"\n{text}\n", "body")
    tag = re.match(r"\$body\d*\$", quoted)[0]
    assert quoted.count(tag) == 2
    assert quoted == f"{tag}\n{text}\n{tag}"


@given(TEXT)
def test_text_passes_format_unchanged(text):
    assert quoting.for_format(text).replace("%%", "%") == text
    assert not re.search(r"(?<!%)(?:%%)*%(?!%)", quoting.for_format(text))


@given(TEXT)
def test_a_literal_is_one_token_for_either_reading_of_backslashes(text):
    quoted = quoting.literal(text)
    body = quoted.removeprefix("E")[1:-1]
    assert ("\\" in text) is quoted.startswith("E")
    assert re.fullmatch(r"(?:[^'\\]|''|\\\\)*", body)
    assert body.replace("''", "'").replace("\\\\", "\\") == text


@given(TEXT)
def test_an_identifier_is_one_token(text):
    assert quoting.identifier(text)[1:-1].replace('""', '"') == text


@given(TEXT, TEXT)
def test_an_identifier_of_ours_needs_no_quotes_and_has_at_most_63_bytes(name, uri):
    made = names.identifier("pgtrigger_zz00_", name, uri, suffix="_truncate")
    assert re.fullmatch(r"[a-z0-9_]{1,63}", made)
    assert made == names.identifier("pgtrigger_zz00_", name, uri, suffix="_truncate")


@pytest.mark.parametrize(
    ("db_table", "written"),
    [
        ("order", '"order"'),
        ('"Side"."table"', '"Side"."table"'),
        ("a.b", '"a.b"'),
        ("x'; --", '"x\'; --"'),
    ],
)
def test_a_table_is_written_as_django_writes_it(db_table, written):
    assert quoting.relation(db_table) == written
