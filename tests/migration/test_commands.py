"""``bulksafe ls`` and pgtrigger's own command, on a real project."""

import json

import pytest

LINE = """
class Line(models.Model):
    a = models.IntegerField(default=0)
    b = models.IntegerField(default=0)
    c = models.IntegerField(default=0)
    class Meta:
        triggers = [
            bulksafe.Check(Q(a__gte=0), name="positive"),
            bulksafe.Check(Q(b__gte=0), name="in_the_end", deferred=True),
            bulksafe.Check(Q(a=0), name="kept", operation=pgtrigger.Delete),
            bulksafe.Compute("c", F("a") + F("b")),
        ]
"""


@pytest.fixture
def lines(project):
    project.models(LINE)
    project.make()
    project.migrate()
    return project


def states(project, code):
    found = json.loads(project.manage("bulksafe", "ls", "--json", code=code).stdout)
    return {status["label"]: status["state"] for status in found}


def test_installed(lines):
    assert states(lines, code=0) == {
        "shop.Line:compute_c": "installed",
        "shop.Line:in_the_end": "installed",
        "shop.Line:kept": "installed",
        "shop.Line:positive": "installed",
    }
    listed = lines.manage("bulksafe", "ls").stdout
    assert "shop.Line  (table shop_line)" in listed
    assert "4 invariants, 0 differ" in listed
    assert "\x1b[" not in listed
    assert "\x1b[" in lines.manage("bulksafe", "--force-color", "ls").stdout
    assert "\x1b[" in lines.manage("bulksafe", "ls", "--force-color", "-v", "0").stdout


def test_order_timing_and_operations(lines):
    found = json.loads(lines.manage("bulksafe", "ls", "--json").stdout)
    assert [
        (s["order"], s["label"].partition(":")[2], s["timing"], s["operations"]) for s in found
    ] == [
        (1, "compute_c", "before", "INSERT, UPDATE"),
        (2, "kept", "after", "DELETE, TRUNCATE"),
        (3, "positive", "after", "INSERT, UPDATE"),
        (4, "in_the_end", "at commit", "INSERT, UPDATE"),
    ]


def test_outdated_missing_and_disabled(lines):
    kept, positive = (
        trigger
        for trigger in lines.installed().triggers
        if trigger.name.startswith(("pgtrigger_kept", "pgtrigger_positive"))
    )
    lines.run(f"DROP TRIGGER {positive.name} ON shop_line")
    lines.run(f"ALTER TABLE shop_line DISABLE TRIGGER {kept.name}")
    lines.models(LINE.replace('F("a") + F("b")', 'F("a") - F("b")'))
    assert states(lines, code=1) == {
        "shop.Line:compute_c": "outdated",
        "shop.Line:in_the_end": "installed",
        "shop.Line:kept": "disabled",
        "shop.Line:positive": "missing",
    }
    assert "4 invariants, 3 differ" in lines.manage("bulksafe", "ls", code=1).stdout
    lines.manage("bulksafe", "ls", "shop.Line:in_the_end")
    lines.manage("bulksafe", "ls", "shop.line:positive", code=1)
    lines.manage("bulksafe", "ls", "shop", code=1)


def test_a_part_of_an_invariant_is_missing(lines):
    (guard,) = (t for t in lines.installed().triggers if t.name.endswith("_guard"))
    lines.run(f"DROP TRIGGER {guard.name} ON shop_line")
    assert states(lines, code=1)["shop.Line:compute_c"] == "outdated"


def test_no_table(project):
    project.models(LINE)
    assert set(states(project, code=1).values()) == {"missing"}


def test_no_invariants(project):
    project.models("class Line(models.Model): pass")
    assert "No invariants are declared" in project.manage("bulksafe", "ls").stdout
    assert project.manage("bulksafe", "verify").stdout == "No invariants are declared.\n"
    assert project.manage("bulksafe", "ls", "--json").stdout == "[]\n"


def test_errors(project):
    project.models(LINE)
    unknown = project.manage("bulksafe", "ls", "--database", "elsewhere", code=2).stderr
    assert "no database 'elsewhere'; known are: default" in unknown
    assert (
        "No invariant matches 'shop.Lime'"
        in project.manage("bulksafe", "ls", "shop.Lime", code=2).stderr
    )
    project.aliases["lite"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    assert "not PostgreSQL" in project.manage("bulksafe", "ls", "--database", "lite", code=2).stderr
    project.aliases["away"] = {**project.aliases["default"], "NAME": "no_such_database"}
    away = project.manage("bulksafe", "ls", "--database", "away", code=2).stderr
    assert "query failed" in away
    assert "Traceback" not in away
    project.manage("bulksafe", "lists", code=2)
    project.manage("bulksafe", code=2)


def test_a_declaration_that_the_checks_refuse(project):
    project.models(LINE.replace('F("a") + F("b")', 'F("a") + F("z")'))
    refused = project.manage("bulksafe", "ls", code=2).stderr
    assert "bulksafe.E020" in refused
    assert "Traceback" not in refused


def test_help(project):
    project.models("")
    general = project.manage("bulksafe", "--help").stdout
    assert "list every invariant" in general
    listing = project.manage("bulksafe", "ls", "--help").stdout
    for words in ("examples:", "exit status:", "installed", "outdated", "missing", "disabled"):
        assert words in listing


# pgtrigger's command


def test_pgtrigger_ls(lines):
    listed = lines.manage("pgtrigger", "ls").stdout
    assert listed.count("INSTALLED") == 4
    assert "shop.Line:compute_c" in listed
    assert "PRUNE" not in listed


def test_pgtrigger_uninstall_and_install(lines):
    before = lines.installed()
    lines.manage("pgtrigger", "uninstall", "shop.Line:compute_c")
    assert states(lines, code=1)["shop.Line:compute_c"] == "missing"
    lines.manage("pgtrigger", "uninstall")
    assert not lines.installed()
    lines.manage("pgtrigger", "install")
    assert lines.installed() == before
    lines.manage("pgtrigger", "install")
    assert lines.installed() == before


def test_pgtrigger_disable_and_enable(lines):
    before = lines.installed()
    lines.manage("pgtrigger", "disable", "shop.Line:kept")
    assert states(lines, code=1)["shop.Line:kept"] == "disabled"
    lines.run("INSERT INTO shop_line (a, b, c) VALUES (1, 0, 0)")
    lines.run("TRUNCATE shop_line")
    lines.manage("pgtrigger", "disable")
    assert set(states(lines, code=1).values()) == {"disabled"}
    lines.run("INSERT INTO shop_line (a, b, c) VALUES (-1, -1, 5)")
    lines.manage("pgtrigger", "enable")
    assert lines.installed() == before


def test_pgtrigger_prune_drops_only_undeclared_triggers(lines):
    before = lines.installed()
    lines.manage("pgtrigger", "prune")
    assert lines.installed() == before
    lines.models(LINE.replace('bulksafe.Check(Q(a__gte=0), name="positive"),', ""))
    assert "pgtrigger_positive" in lines.manage("pgtrigger", "ls").stdout
    lines.manage("pgtrigger", "prune")
    left = {trigger.name for trigger in lines.installed().triggers}
    gone = {trigger.name for trigger in before.triggers} - left
    assert len(gone) == 1
    assert gone.pop().startswith("pgtrigger_positive")
    # The function that prune leaves behind is harmless, and the migration drops it.
    lines.make()
    lines.migrate()
    lines.assert_all_installed()
    assert lines.installed() == lines.fresh()
