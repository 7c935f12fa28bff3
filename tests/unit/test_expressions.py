"""Expressions as SQL over the old and the new row, without a database."""

import datetime as dt

import pytest
from django.db.models import F, Q, Value
from django.db.models.functions import Concat, Lower, TruncDate
from django.utils import timezone, translation

from bulksafe.planning.expressions import NEW, OLD, compile_expression
from bulksafe.planning.problems import Refused
from tests.apps.columns.models import TYPED, Cell, Measure, NamedLikeSQL, Nullable, OddlyNamed


@pytest.mark.parametrize(
    ("model", "expression", "sql"),
    [
        (Nullable, Q(n__lte=F("m")), '"new"."n" <= ("new"."m")'),
        (Nullable, Q(new__n__lte=F("old__n")), '"new"."n" <= ("old"."n")'),
        (Nullable, F("n") + 1, '("new"."n" + 1)'),
        (Nullable, Q(n__in=[]), "false"),
        (Nullable, ~Q(n__in=[]), "true"),
        (Nullable, Q(t="100% '{}' \\"), "\"new\".\"t\" = E'100% ''{}'' \\\\'"),
        (OddlyNamed, F("id"), '"new"."Primary Kéy"'),
        (OddlyNamed, F("limit"), '''"new"."body '; SELECT 1; --"'''),
        (Cell, Q(pk__isnull=False), None),
        # A field that is called like a row.
        (NamedLikeSQL, Q(new__lte=3), '"new"."new" <= 3'),
        (NamedLikeSQL, Q(old__new__lte=3), '"old"."new" <= 3'),
        (NamedLikeSQL, Q(new__old__lte=3), '"new"."old" <= 3'),
    ],
)
def test_names_are_columns_of_a_row(model, expression, sql):
    compiled = compile_expression(model, expression)
    assert sql is None or compiled.sql == sql


def test_it_says_what_is_read():
    compiled = compile_expression(Nullable, Q(n=F("old__m")) | Q(t=Lower("t")))
    read = {(row, field.name) for row, field in compiled.reads}
    assert read == {(NEW, "n"), (OLD, "m"), (NEW, "t")}


def test_a_plain_name_means_the_old_row_on_request():
    assert compile_expression(Nullable, Q(n=1), row=OLD).sql == '"old"."n" = 1'


def test_a_generated_column_is_replaced_by_its_expression():
    """Before the row is stored it has no value."""
    compiled = compile_expression(Measure, F("area"), bare=True)
    assert {field.name for _, field in compiled.reads} == {"width", "height"}
    assert compile_expression(Measure, F("area")).sql == '"new"."area"'


def test_a_parameter_has_the_collation_of_its_column():
    compiled = compile_expression(TYPED["NoCase"], Lower("a"), bare=True)
    assert compiled.sql == 'LOWER(("a" COLLATE "no_case"))'


def test_a_moment_is_moved_in_djangos_time_zone():
    moved = compile_expression(TYPED["DateTime"], F("a") + Value(dt.timedelta(days=1)))
    assert moved.sql.count("AT TIME ZONE 'UTC'") == 2
    difference = compile_expression(TYPED["DateTime"], F("a") - F("b"))
    assert "TIME ZONE" not in difference.sql


def test_the_sql_is_independent_of_the_active_language_and_time_zone():
    expression = TruncDate("a")
    plain = compile_expression(TYPED["DateTime"], expression).sql
    with timezone.override(dt.timezone(dt.timedelta(hours=5))), translation.override("ar"):
        assert compile_expression(TYPED["DateTime"], expression).sql == plain


def test_an_unknown_name_is_refused():
    with pytest.raises(Refused) as raised:
        compile_expression(TYPED["JSON"], Q(nothing=1))
    assert raised.value.problem.id == "E020"


@pytest.mark.parametrize("literal", ["%", "%s", "%(a)s", "%%", "100%"])
def test_percent_signs_are_no_placeholders(literal):
    compiled = compile_expression(Nullable, Concat("t", Value(literal)))
    assert f"'{literal}'" in compiled.sql
