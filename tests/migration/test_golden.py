"""The SQL of each kind of invariant, letter by letter: ``golden/*.sql``.

``pytest tests/migration --update-golden`` writes the files again; read the difference.
"""

from pathlib import Path

import pgtrigger
import pytest
from django.db import models
from django.db.models import F, Q
from django.db.models.signals import post_delete, post_save
from django.test.utils import isolate_apps

import bulksafe
from bulksafe.declarations import Capture
from tests.integration import reception
from tests.migration.test_changes import order

GOLDEN = Path(__file__).with_name("golden")

INVARIANTS = {
    "check": bulksafe.Check(
        Q(discount__lte=F("amount")), name="within_amount", message="50% $off$"
    ),
    "check_deferred": bulksafe.Check(Q(amount__gte=0), name="positive", deferred=True),
    "check_delete": bulksafe.Check(
        Q(status="draft"), name="drafts_only", operation=pgtrigger.Delete
    ),
    "check_update": bulksafe.Check(Q(new__amount__gte=F("old__amount")), name="grows"),
    "compute": bulksafe.Compute("net", F("amount") - F("discount")),
    "immutable": bulksafe.Immutable("number", "status"),
    "transition": bulksafe.Transition("status", {"draft": ["paid"]}),
    "transition_initial": bulksafe.Transition(
        "status", {"draft": ["paid"], None: ["draft"]}, initial=["draft", None]
    ),
    "check_new": bulksafe.Check(Q(amount__gte=0), name="positive", mode="new"),
    "check_deferred_new": bulksafe.Check(
        Q(amount__gte=0), name="positive", deferred=True, mode="new"
    ),
    "compute_new": bulksafe.Compute("net", F("amount") - F("discount"), mode="new"),
    "transition_new": bulksafe.Transition("status", {"draft": ["paid"]}, mode="new"),
    "check_observed": bulksafe.Check(Q(amount__gte=0), name="positive", mode="observe"),
    "check_deferred_observed": bulksafe.Check(
        Q(amount__gte=0), name="positive", deferred=True, mode="observe"
    ),
    "check_delete_observed": bulksafe.Check(
        Q(status="draft"), name="drafts_only", operation=pgtrigger.Delete, mode="observe"
    ),
    "compute_observed": bulksafe.Compute("net", F("amount") - F("discount"), mode="observe"),
    "immutable_observed": bulksafe.Immutable("number", mode="observe"),
    "capture": Capture(),
}


def compiled(invariant):
    with isolate_apps("examples.shop"):

        class Order(models.Model):
            number = models.CharField(max_length=20)
            status = models.CharField(max_length=20, null=True)
            amount = models.DecimalField(max_digits=12, decimal_places=2)
            discount = models.IntegerField(default=0)
            net = models.DecimalField(max_digits=12, decimal_places=2, editable=False)

            class Meta:
                app_label = "shop"
                db_table = "Sales Orders"

    with reception.only_these():
        reception.declare(post_save, Order, when=Q(new__status="50% $off$") & ~Q(old__amount=1))
        reception.declare(post_delete, Order, "every")
        return invariant.compile(Order)


@pytest.mark.parametrize("kind", INVARIANTS)
def test_golden(kind, request):
    trigger = compiled(INVARIANTS[kind])
    sql = f"{trigger.install_sql}\n\n-- uninstall\n\n{trigger.uninstall_sql}\n"
    path = GOLDEN / f"{kind}.sql"
    if request.config.getoption("--update-golden", default=False):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(sql)
    assert path.read_text() == sql


def test_there_is_no_golden_file_too_many():
    assert {path.stem for path in GOLDEN.glob("*.sql")} == set(INVARIANTS)


@pytest.mark.parametrize("kind", INVARIANTS)
def test_the_sql_parses(kind):
    pglast = pytest.importorskip("pglast")
    trigger = compiled(INVARIANTS[kind])
    for sql in (
        trigger.install_sql,
        trigger.uninstall_sql,
        trigger.enable_sql,
        trigger.disable_sql,
    ):
        assert pglast.parse_sql(sql)
    for sql in (trigger.install_sql, trigger.uninstall_sql):
        for block in pglast.split(sql):
            assert pglast.parse_plpgsql(block)


def test_the_installed_functions_parse(project):
    pglast = pytest.importorskip("pglast")
    project.models(order())
    project.make()
    project.migrate()
    functions = project.installed().functions
    assert len(functions) >= 12
    for function in functions:
        assert pglast.parse_sql(function.definition)
        if "LANGUAGE plpgsql" in function.definition:
            assert pglast.parse_plpgsql(function.definition)
