"""A changed mode is one line in ``models.py`` and one migration, forwards and backwards."""

import itertools
import json
import re

import psycopg
import pytest

from tests.migration.project import Trigger

MODELS = """
class Order(models.Model):
    amount = models.IntegerField(default=0)
    discount = models.IntegerField(default=0)
    net = models.IntegerField(default=0)
    number = models.CharField(max_length=9, default="")
    status = models.CharField(max_length=9, default="draft")

    class Meta:
        triggers = [{rule}]
"""

RULES = {
    "Check": 'bulksafe.Check(Q(discount__lte=F("amount")), name="rule"{mode})',
    "deferred": 'bulksafe.Check(Q(discount__lte=F("amount")), name="rule", deferred=True{mode})',
    "delete": 'bulksafe.Check(Q(status="draft"), name="rule", operation=pgtrigger.Delete{mode})',
    "Compute": 'bulksafe.Compute("net", F("amount") - F("discount"), name="rule"{mode})',
    "Immutable": 'bulksafe.Immutable("number", name="rule"{mode})',
    "Transition": 'bulksafe.Transition("status", {{"draft": ["paid"]}}, name="rule"{mode})',
}
#: Every change from one mode to another.
MODES = ["enforce", "new", "observe", "enforce", "observe", "new", "enforce"]
#: These have no other SQL in this mode.
SAME = {"delete", "Immutable"}


def models(kind, mode):
    text = "" if mode == "enforce" else f', mode="{mode}"'
    return MODELS.format(rule=RULES[kind].format(mode=text))


def installed(project) -> tuple[tuple[Trigger, ...], list[str]]:
    found = project.installed()
    return found.triggers, [function.definition for function in found.functions]


@pytest.mark.parametrize("kind", RULES)
def test_each_change_of_a_mode_is_one_migration(project, kind):
    states = []
    for before, mode in itertools.pairwise(["", *MODES]):
        project.models(models(kind, mode))
        project.make()
        is_same = kind in SAME and {before, mode} == {"enforce", "new"}
        assert len(project.migrations()) == len(states) + (0 if is_same else 1)
        if is_same:
            continue
        project.migrate()
        project.assert_nothing_to_make()
        states.append(installed(project))
    names = project.migrations()
    assert len(names) == len(states)

    for name, expected in reversed(list(zip(names, states, strict=True))):
        project.migrate("shop", name)
        assert installed(project) == expected
    project.migrate("shop", "zero")
    assert not project.installed()


def test_the_mode_is_what_the_database_does(project):
    bad = "INSERT INTO shop_order (amount, discount, net, number, status) VALUES (0, 5, 0, '', '')"
    project.models(models("Check", "enforce"))
    project.make()
    project.migrate()
    assert project.refusal(bad) == "rule"

    project.models(models("Check", "observe"))
    project.make()
    project.migrate()
    project.run(bad)
    assert project.run("SELECT invariant FROM bulksafe_violation") == [("shop.Order:rule",)]

    project.models(models("Check", "new"))
    project.make()
    project.migrate()
    project.run("UPDATE shop_order SET status = 'x'")
    assert project.refusal(bad) == "rule"


def test_the_migration_waits_for_the_table_of_violations(project):
    project.models(models("Check", "observe"))
    project.make()

    assert '("bulksafe", "0003_violations")' in project.migration("0001").replace("'", '"')
    project.migrate("shop")
    project.assert_all_installed()


def test_the_table_stays_while_an_observed_rule_writes_to_it(project):
    project.models(models("Check", "observe"))
    project.make()
    project.migrate()
    migration = project.directory / "shop" / "migrations" / "0001_initial.py"
    text = re.sub(r"\(.bulksafe., .0003_violations.\),?", "", migration.read_text())
    migration.write_text(text)

    result = project.migrate("bulksafe", "zero", code=1)

    assert "shop_order" in result.stderr
    assert 'the rules with mode="observe"' in result.stderr
    project.run("SELECT FROM bulksafe_violation")


def test_without_the_table_the_rule_is_not_installed(project):
    project.models(models("Check", "observe"))
    project.make()
    project.migrate("bulksafe")
    project.run("DROP TABLE bulksafe_violation CASCADE")

    with pytest.raises(AssertionError, match="table of violations is missing"):
        project.migrate()


def test_an_app_without_migrations_may_observe(project):
    project.models(models("Check", "observe"))
    project.settings("MIGRATION_MODULES = {'shop': None}")
    project.migrate("--run-syncdb")

    project.run(
        "INSERT INTO shop_order (amount, discount, net, number, status) VALUES (0, 5, 0, '', '')"
    )
    assert project.run("SELECT count(*) FROM bulksafe_violation") == [(1,)]


def test_migrate_sets_the_limit(project):
    project.models(models("Check", "observe"))
    project.make()
    project.settings("BULKSAFE = {'MAX_OBSERVED': 2}")
    project.migrate()
    project.run(
        "INSERT INTO shop_order (amount, discount, net, number, status) "
        "SELECT 0, 5, 0, '', '' FROM generate_series(1, 5)"
    )
    assert project.run("SELECT count(*) FROM bulksafe_violation") == [(2,)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        project.run("INSERT INTO bulksafe_violation SELECT * FROM bulksafe_violation")


STORED = """
class Order(models.Model):
    amount = models.IntegerField()
    discount = models.IntegerField(default=1)
    net = models.IntegerField(null=True, editable=False)
    double = models.IntegerField(null=True, editable=False)
    quadruple = models.IntegerField(null=True, editable=False)
"""


@pytest.mark.parametrize("modes", ["new new new", "observe observe observe", "enforce new observe"])
def test_a_backfill_repairs_columns_of_each_mode_and_records_no_violation(project, modes):
    """With mode="new", the trigger skips a row that does not change; with "observe", every row."""
    project.models(STORED)
    project.make()
    project.migrate()
    # The first row is right, and the second one only in itself.
    values = "(5, 4, 8, 16), (5, 9, 18, 36), (5, NULL, NULL, NULL), (5, 4, 8, 1)"
    columns = "amount, net, double, quadruple, discount"
    project.run(f"INSERT INTO shop_order ({columns}) SELECT v.*, 1 FROM (VALUES {values}) AS v")
    net, double, quadruple = modes.split()
    project.models(f"""{STORED}
    class Meta:
        triggers = [
            bulksafe.Compute("net", F("amount") - F("discount"), mode="{net}"),
            bulksafe.Compute("double", F("net") * 2, mode="{double}"),
            bulksafe.Compute("quadruple", F("double") * 2, mode="{quadruple}"),
        ]
""")
    project.make()
    project.migrate()
    said = project.manage("bulksafe", "backfill", "shop.Order").stdout
    assert "4 rows looked at, 3 written" in said
    assert set(project.run("SELECT net, double, quadruple FROM shop_order")) == {(4, 8, 16)}
    project.manage("bulksafe", "verify")
    project.manage("bulksafe", "violations")


@pytest.mark.parametrize("deferred", [False, True])
def test_modes_follow_each_other_over_rows_that_break_the_rule(project, deferred):
    """What was written under one mode meets the next one; back through all migrations, too."""
    allowed = []
    for number, mode in enumerate(("enforce", "observe", "new", "enforce")):
        project.models(f"""
            class Note(models.Model):
                amount = models.IntegerField()
                class Meta:
                    triggers = [
                        bulksafe.Check(
                            Q(amount__gte=0), name="positive", mode="{mode}", deferred={deferred}
                        )
                    ]
        """)
        project.make()
        project.migrate()
        allowed.append(
            [
                is_allowed(project, f"INSERT INTO shop_note (amount) VALUES (-{number})"),
                is_allowed(project, "UPDATE shop_note SET amount = amount - 1 WHERE amount < 0"),
            ]
        )
        project.run("INSERT INTO shop_note (amount) VALUES (1)")
    assert allowed == [[True, True], [True, True], [False, True], [False, False]]
    assert recorded(project) == ["INSERT", "UPDATE"]
    project.migrate("shop", "zero")
    project.migrate()
    project.assert_all_installed()


def is_allowed(project, statement):
    try:
        project.run(statement)
    except psycopg.errors.CheckViolation:
        return False
    return True


def recorded(project):
    shown = project.manage("bulksafe", "violations", "--json", code=1).stdout
    return sorted(one["operation"] for one in json.loads(shown))
