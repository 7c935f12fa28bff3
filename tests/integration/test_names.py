"""Names, literals and messages that SQL, ``format()`` or a template could misread."""

import re

import pgtrigger
import pytest
from django.apps.registry import Apps
from django.db import connection, transaction
from django.db.models import AutoField, F, IntegerField, Model, Q, Value
from django.db.models.functions import Concat
from hypothesis import given
from hypothesis import strategies as st

import bulksafe
from tests.apps.columns.models import (
    HOSTILE,
    InSchema,
    LongestName,
    NamedLikeSQL,
    OddlyNamed,
    Wide,
)
from tests.apps.columns.trying import check_constraints, examples, install, refused, undone

pytestmark = pytest.mark.django_db

#: What ends, opens or fills something in the languages that the SQL passes through.
PIECES = st.sampled_from(
    [
        *"' '' \" \\ \\\\ % %% %s %1$s %(a)s { } {0} $ $$".split(),
        *"); -- /* */ ; \\n \\' E' U&' ż 漢 NULL".split(),
        *"$bulksafe$ $bulksafe2$ $body$ $ddl$ $query$ $$bulksafe$".split(),
        *""":'name' :"trigger" :condition :$body""".split(),
        *"\n\r\t ",
    ]
)
TEXT = st.lists(
    PIECES
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=3),
    max_size=6,
).map("".join)


def cut(name):
    """PostgreSQL's names have 63 bytes, and Django refuses none that is longer."""
    return name.encode()[:60].decode(errors="ignore")


def anonymous_model(table, column):
    """A model that no registry keeps; ``column`` is its key and, with a letter more, the others."""
    meta = type("Meta", (), {"app_label": "columns", "db_table": table, "apps": Apps()})
    names = {"n": "n", "m": "m", "n2": "2", "fixed": "f"}
    integers = {
        name: IntegerField(default=0, db_column=f"{column}{suffix}", editable=name != "m")
        for name, suffix in names.items()
    }
    attributes = {"__module__": __name__, "Meta": meta, **integers}
    return type(
        "Anonymous", (Model,), {**attributes, "id": AutoField(primary_key=True, db_column=column)}
    )


def violation(operation):
    with pytest.raises(bulksafe.InvariantViolation) as raised, transaction.atomic():
        operation()
    return raised.value


def test_fields_named_like_what_the_templates_use():
    row = NamedLikeSQL.objects.create(subject="s", new=1, old=2, row=4, select=8, home=16, user=32)
    assert row.broken == 63
    assert refused(lambda: NamedLikeSQL.objects.update(new=3))
    NamedLikeSQL.objects.update(old=5, new=3)
    assert refused(lambda: NamedLikeSQL.objects.update(new=2))
    assert refused(lambda: NamedLikeSQL.objects.update(tg_op=1))
    assert refused(lambda: NamedLikeSQL.objects.update(user=1))
    assert refused(lambda: NamedLikeSQL.objects.update(target=2))
    NamedLikeSQL.objects.update(target=1, broken=0)
    assert NamedLikeSQL.objects.get().broken == 1 + 63 + 2 + 3
    check_constraints()
    NamedLikeSQL.objects.update(row=6)
    assert "subject=s" in str(violation(check_constraints))
    NamedLikeSQL.objects.update(row=0, old=99)
    assert "subject=s" in str(violation(NamedLikeSQL.objects.all().delete))
    check_constraints()
    with connection.cursor() as cursor:
        truncate = lambda: cursor.execute('TRUNCATE "table"')  # noqa: E731
        assert "subject=s" in str(violation(truncate))
        NamedLikeSQL.objects.update(old=98)
        check_constraints()
        truncate()


def test_tables_and_columns_that_only_work_in_quotes():
    row = OddlyNamed.objects.create(amount=8)
    assert row.half == 4
    OddlyNamed.objects.update(amount=6, half=1)
    row.refresh_from_db()
    assert row.half == 3
    refusal = violation(lambda: OddlyNamed.objects.update(amount=11))
    assert refusal.message == HOSTILE
    assert refusal.invariant == "columns.OddlyNamed:Within-Limit"
    assert f"the UPDATE of the row with Primary Kéy={row.pk}." in str(refusal)
    assert refused(lambda: OddlyNamed.objects.update(limit=11))
    assert refused(lambda: OddlyNamed.objects.update(kind="x"))
    OddlyNamed.objects.update(kind=HOSTILE)
    assert refused(lambda: OddlyNamed.objects.update(kind="''"))
    assert violation(OddlyNamed.objects.all().delete).message == HOSTILE
    OddlyNamed.objects.update(kind="'")
    check_constraints()
    OddlyNamed.objects.update(amount=-1)
    assert violation(check_constraints).message == HOSTILE
    OddlyNamed.objects.all().delete()
    check_constraints()


def test_the_server_sends_the_names_as_they_are():
    OddlyNamed.objects.create()
    diag = violation(lambda: OddlyNamed.objects.update(amount=11)).__cause__.diag
    assert diag.table_name == OddlyNamed._meta.db_table
    assert diag.message_primary == HOSTILE
    assert diag.constraint_name == "Within-Limit"


def test_names_of_63_bytes():
    LongestName.objects.create(number=1)
    refusal = violation(lambda: LongestName.objects.update(number=-1))
    assert refusal.invariant.endswith(":" + "n" * 47)
    assert refusal.__cause__.diag.table_name == LongestName._meta.db_table


def test_a_table_in_a_schema_that_is_not_on_the_search_path():
    row = InSchema.objects.create(number=4)
    assert row.double == 8
    refusal = violation(lambda: InSchema.objects.update(number=-1))
    assert refusal.__cause__.diag.schema_name == "Side Schéma"
    InSchema.objects.update(number=11)
    assert refused(check_constraints)
    InSchema.objects.update(number=9)
    check_constraints()
    assert refused(InSchema.objects.all().delete)
    with connection.cursor() as cursor:
        assert refused(lambda: cursor.execute('TRUNCATE "Side Schéma"."in schema"'))


@pytest.fixture(params=["on", "off"])
def backslashes(request, db):
    """Whether the session reads a backslash in a plain literal as it is."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL escape_string_warning = off")
        cursor.execute(f"SET LOCAL standard_conforming_strings = {request.param}")


def test_text_in_conditions_and_messages_is_never_executed(backslashes):
    @examples(12)
    @given(TEXT, TEXT.filter(str.strip))
    @undone
    def stays_text(literal, message):
        only = Q(t=literal)
        install(
            Wide,
            bulksafe.Check(~only | Q(n=1), name="now", message=message),
            bulksafe.Check(~only | Q(n=0), name="at_commit", message=message, deferred=True),
            bulksafe.Check(~only, name="gone", message=message, operation=pgtrigger.Delete),
            bulksafe.Compute("u", Concat("t", Value(literal))),
        )
        Wide.objects.create(t=f"{literal}x", n=0)
        assert violation(lambda: Wide.objects.create(t=literal, n=0)).message == message
        row = Wide.objects.create(t=literal, n=1)
        row.refresh_from_db()
        assert row.u == literal + literal
        assert violation(row.delete).message == message
        with connection.cursor() as cursor:
            truncate = lambda: cursor.execute("TRUNCATE columns_wide")  # noqa: E731
            assert violation(lambda: (check_constraints(), truncate())).message == message
            assert violation(check_constraints).message == message

    stays_text()


def test_any_text_as_a_state(backslashes):
    @examples(8)
    @given(TEXT, TEXT)
    @undone
    def stays_text(first, second):
        install(Wide, bulksafe.Transition("t", {first: [second]}, initial=[first]))
        row = Wide.objects.create(t=first)
        assert refused(lambda: Wide.objects.update(t=f"{second}x")) is (f"{second}x" != first)
        assert not refused(lambda: Wide.objects.update(t=second))
        assert refused(lambda: Wide.objects.create(t=f"{first}x"))
        assert refused(lambda: Wide.objects.update(t=first)) is (first != second)
        assert row.pk

    stays_text()


def test_any_name_of_a_column_and_of_a_table(backslashes):
    """Any that Django itself can create and read: it escapes nothing in names."""
    usable = TEXT.map(lambda name: re.sub('["%$]', "", name)).filter(bool)

    @examples(8)
    @given(usable.map(cut), usable.map(cut))
    @undone
    def quoted(table, column):
        model = anonymous_model(table, column)
        with connection.schema_editor() as editor:
            editor.create_model(model)
        install(
            model,
            bulksafe.Check(Q(n__lte=9), name="small"),
            bulksafe.Check(Q(n__lte=8), name="smaller", deferred=True),
            bulksafe.Check(~Q(n=7), name="keep", operation=pgtrigger.Delete),
            bulksafe.Compute("m", F("n") + 1),
            bulksafe.Compute("n2", F("m") + F("n")),
            bulksafe.Immutable("fixed"),
        )
        row = model.objects.create(n=7)
        row.refresh_from_db()
        assert (row.m, row.n2) == (8, 15)
        assert refused(lambda: model.objects.update(n=10))
        assert refused(lambda: model.objects.update(fixed=1))
        assert refused(model.objects.all().delete)
        model.objects.update(n=9)
        assert f"{column}={row.pk}" in str(violation(check_constraints))
        assert violation(check_constraints).__cause__.diag.table_name == table

    quoted()
