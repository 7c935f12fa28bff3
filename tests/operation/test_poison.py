"""Events and receivers that always fail or hang: no other event waits for them."""

import pytest

from tests.operation.conftest import MODELS, order, texts
from tests.operation.processes import listening, wait_until
from tests.operation.test_dead_letters import parked, status

pytestmark = pytest.mark.once

CONDITIONAL = """
import bulksafe
from django.db.models import Q
from django.db.models.signals import post_save
from shop.models import Log, Order

@bulksafe.critical(
    post_save, sender=Order, run="after_commit", when=Q(new__amount__gte={when}), max_attempts=1,
    dispatch_uid="conditional",
)
def conditional(sender, instance, **kwargs):
    Log.objects.create(text=instance.number)
"""

BOTH = pytest.mark.parametrize("atomic", [True, False])


@pytest.mark.parametrize(
    "context", ['"text"', "[1]", "5", "null", '{"bulksafe.written_by": 5}'], ids=repr
)
def test_a_context_that_is_no_object(shop, context):
    """Every role that may write a row may set it in SQL."""
    project = shop(first="")
    project.run(
        "WITH context AS (SELECT set_config('bulksafe.context', %s, true)) "
        "INSERT INTO shop_order (number, amount) SELECT 'odd', 0 FROM context",
        context,
    )
    order(project, "good")

    project.manage("bulksafe", "listen", "--once")

    assert sorted(texts(project)) == ["first good 0", "first odd 0"]


@BOTH
@pytest.mark.parametrize(
    "context",
    [
        '{"digits": ' + "9" * 6_000 + "}",
        "[" * 4_000 + "]" * 4_000,
        '{"deep": ' * 101 + "1" + "}" * 101,
        '{"long": "' + "x" * 70_000 + '"}',
    ],
    ids=["digits", "nested", "too deep", "long"],
)
def test_a_context_that_cannot_be_read_harms_its_own_event_only(shop, atomic, context):
    """Every role that may write a row may set it in SQL; PostgreSQL accepts it as JSON."""
    project = shop(first=f"max_attempts=1, atomic={atomic}")
    for number in ("before", "odd", "after"):
        with project.connect() as connection, connection.transaction():
            if number == "odd":
                connection.execute("SELECT set_config('bulksafe.context', %s, true)", [context])
            connection.execute("INSERT INTO shop_order (number, amount) VALUES (%s, 0)", [number])

    project.manage("bulksafe", "listen", "--once", code=1)

    assert sorted(texts(project)) == ["first after 0", "first before 0"]
    assert parked(project) == [("first", "2", "dead", 1)]
    (event,) = status(project)["parked"]
    assert event["error"].startswith("UnreadableContext: The event's context cannot be read: ")
    shown = project.manage("bulksafe", "status", "--id", str(event["id"]), code=1)
    assert "Traceback" not in shown.stderr


def test_a_condition_no_longer_matches_the_old_row(shop):
    project = shop(placeholder="")
    project.write("shop/receivers.py", CONDITIONAL.format(when=0))
    project.make()
    project.migrate()
    order(project, "not a number")
    project.run("ALTER TABLE shop_order ALTER number TYPE integer USING 17")
    project.write("shop/receivers.py", CONDITIONAL.format(when=-1))
    order(project, "18", -5)
    order(project, "19", 5)

    project.manage("bulksafe", "listen", "--once", code=1)

    # It is unknown whether the first one met the new condition.
    assert parked(project) == [("conditional", "1", "dead", 1)]
    assert texts(project) == ["19"]


@BOTH
@pytest.mark.parametrize("options", ["", "batch=True"], ids=["", "batch"])
def test_an_event_that_cannot_be_read_keeps_its_place(shop, atomic, options):
    """The event of the row before it is delivered, and what comes after waits behind it."""
    project = shop(placeholder="")
    project.write(
        "shop/receivers.py",
        f"""
import bulksafe
from django.db.models.signals import post_save
from shop.models import Log, Order

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="each",
    atomic={atomic}, max_attempts=1, {options})
def each(sender, instance=None, instances=(), **kwargs):
    for one in instances or [instance]:
        Log.objects.create(text=f"{{one.number}} {{one.amount}}")
""",
    )
    project.migrate()
    order(project, "a")
    with project.connect() as connection, connection.transaction():
        connection.execute(
            "SELECT set_config('bulksafe.context', %s, true)", ["[" * 4_000 + "]" * 4_000]
        )
        connection.execute("UPDATE shop_order SET amount = 1")
    project.run("UPDATE shop_order SET amount = 2")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert texts(project) == ["a 0"]
    assert [state for _, _, state, _ in parked(project)] == ["dead", "waiting"]


def test_a_column_that_was_renamed_while_events_waited(shop):
    """Also one that a condition is about, and in what is parked."""
    project = shop(placeholder="")
    project.write(
        "shop/receivers.py", CONDITIONAL.format(when=1).replace("=instance", "=1 / 0 or instance")
    )
    project.make()
    project.migrate()
    order(project, "parked", 2)
    project.manage("bulksafe", "listen", "--once", code=1)
    order(project, "first", 2)
    order(project, "no", 0)
    project.run("UPDATE shop_order SET amount = 3 WHERE number = 'first'")

    project.models(MODELS.replace("amount", "worth").replace("number", "title"))
    renamed = CONDITIONAL.format(when=1).replace("amount", "worth").replace("number", "title")
    renamed = renamed.replace("=instance.title", "=f'{instance.title} {instance.worth}'")
    project.write("shop/receivers.py", renamed)
    project.make(answers="y\ny\n")
    project.migrate()
    project.manage("bulksafe", "retry", "--all")
    project.manage("bulksafe", "listen", "--once")

    assert sorted(texts(project)) == ["first 2", "first 3", "parked 2"]


@pytest.mark.parametrize(
    "error", ["", "'P0001'", "'XX000'", "'0A000'", "'ZZ001'"], ids=lambda error: error or "check"
)
def test_a_domain_that_refuses_a_row_as_it_was(shop, error):
    """By its condition, or by an error of any class in a function that the condition calls."""
    project = shop(first="max_attempts=1")
    order(project, "low", -5)
    project.run("UPDATE shop_order SET amount = 5")
    if error:
        project.run(
            "CREATE FUNCTION is_natural(number integer) RETURNS boolean LANGUAGE plpgsql AS $$ "
            f"BEGIN IF number < 0 THEN RAISE EXCEPTION 'negative' USING ERRCODE = {error}; END IF; "
            "RETURN true; END $$"
        )
    condition = "is_natural(VALUE)" if error else "VALUE >= 0"
    project.run(f"CREATE DOMAIN natural_number AS integer CHECK ({condition})")
    project.run("ALTER TABLE shop_order ALTER amount TYPE natural_number")
    order(project, "good", 1)

    project.manage("bulksafe", "listen", "--once", code=1)

    assert texts(project) == ["first good 1"]
    assert [(key, state) for _, key, state, _ in parked(project)] == [
        ("1", "dead"),
        ("1", "waiting"),
    ]


@BOTH
@pytest.mark.parametrize(
    "raised",
    ["SystemExit(3)", "asyncio.CancelledError()", "GeneratorExit()", "KeyboardInterrupt()"],
)
def test_a_receiver_that_would_end_the_process(shop, atomic, raised):
    project = shop(first=f"max_attempts=2, atomic={atomic}")
    project.write(
        "shop/receivers.py",
        "import asyncio\n"
        + (project.directory / "shop/receivers.py")
        .read_text()
        .replace('ValueError(f"cannot ship {instance.number}")', raised),
    )
    order(project, "bad")
    order(project, "good")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert texts(project) == ["first good 0"]
    assert parked(project) == [("first", "1", "dead", 2)]


def test_a_row_whose_two_states_are_wider_than_a_result(shop):
    project = shop(placeholder="")
    columns = [f"c{number}" for number in range(850)]
    fields = "".join(f"    {name} = models.IntegerField(default=0)\n" for name in columns)
    project.models(f"{MODELS}\nclass Wide(models.Model):\n{fields}")
    project.write(
        "shop/receivers.py",
        """
import bulksafe
from django.db.models.signals import post_save
from shop.models import Log

@bulksafe.critical(post_save, sender="shop.Wide", run="after_commit")
def changed(sender, changed, **kwargs):
    Log.objects.create(text=f"{len(changed)}")
""",
    )
    project.make()
    project.migrate()
    project.run(f"INSERT INTO shop_wide ({', '.join(columns)}) VALUES ({', '.join('0' * 850)})")
    project.run("UPDATE shop_wide SET c849 = 1")

    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["851", "1"]


@BOTH
def test_one_bad_row_of_a_batch(shop, atomic):
    project = shop(placeholder="")
    project.write(
        "shop/receivers.py",
        f"""
import bulksafe
from django.db.models.signals import post_save
from shop.models import Log

@bulksafe.critical(post_save, sender="shop.Order", run="after_commit", dispatch_uid="all",
    batch=True, atomic={atomic}, max_attempts=1)
def all_of_them(sender, instances, **kwargs):
    if any(order.number == "bad" for order in instances):
        raise ValueError
    Log.objects.bulk_create([Log(text=order.number) for order in instances])
""",
    )
    project.migrate()  # the queue begins
    numbers = [*map(str, range(40)), "bad"]
    listed = ", ".join(f"('{number}', 0)" for number in numbers)
    project.run(f"INSERT INTO shop_order (number, amount) VALUES {listed}")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert sorted(texts(project)) == sorted(numbers[:-1])
    assert [(state, attempts) for _, _, state, attempts in parked(project)] == [("dead", 1)]


def failing(project, text):
    """Have the receiver do something else before it fails on a bad row."""
    project.write(
        "shop/receivers.py",
        (project.directory / "shop/receivers.py")
        .read_text()
        .replace('raise ValueError(f"cannot ship {instance.number}")', text),
    )


@BOTH
@pytest.mark.parametrize("then", ["", "; raise ValueError"])
def test_a_receiver_that_closes_the_connection(shop, atomic, then):
    project = shop(first=f"max_attempts=2, atomic={atomic}")
    failing(project, f"from django.db import connections; connections.close_all(){then}")
    for number in ("good", "bad", "fine"):
        order(project, number)

    project.manage("bulksafe", "listen", "--once", code=int(atomic or bool(then)))

    found = texts(project)
    if atomic:
        assert parked(project) == [("first", "2", "dead", 2)]
        assert "atomic=False" in status(project)["parked"][0]["error"]
    elif then:
        assert parked(project) == [("first", "2", "dead", 2)]
    else:
        found.remove("first bad 0")
    assert sorted(found) == ["first fine 0", "first good 0"]


def test_an_error_after_the_commit_keeps_no_other_from_its_call(shop):
    project = shop(first="")
    failing(project, "from django.db import transaction; transaction.on_commit(lambda: 1 / 0)")
    project.write(
        "shop/receivers.py",
        (project.directory / "shop/receivers.py").read_text()
        + """
    from django.db import connection, transaction
    transaction.on_commit(lambda: Log.objects.create(text=f"then {instance.number}"))
""",
    )
    numbers = [f"{kind}{number}" for number in range(10) for kind in ("bad", "good")]
    for number in numbers:
        order(project, number)

    done = project.manage("bulksafe", "listen", "--once")

    assert "ZeroDivisionError" in done.stderr
    assert {text for text in texts(project) if text.startswith("then")} == {
        f"then {number}" for number in numbers
    }


def test_another_client_named_like_a_listener(shop):
    project = shop(first="")
    with project.connect() as stranger:
        stranger.execute("SET application_name = 'bulksafe listen'")
        found = status(project, code=0)

    assert found["listeners"] == []


def test_processes_share_no_pool(shop):
    """Django's own pool of connections: its threads do not live on in a fork."""
    project = shop(first="")
    project.settings('DATABASES["default"].setdefault("OPTIONS", {})["pool"] = True')
    with listening(project, "--concurrency", "2") as (_, log):
        order(project, "good")
        wait_until(lambda: texts(project) == ["first good 0"], log)
        wait_until(lambda: "listening for" in log.read_text(), log)

    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    "statement",
    [
        "SET search_path = pg_catalog",
        "SET ROLE pg_monitor",
        "SET statement_timeout = 1000000",
        "SET TRANSACTION READ ONLY",
        "SET session_replication_role = replica",
    ],
)
def test_a_receiver_leaves_the_connection_in_a_different_state(shop, statement):
    """The worker's own queries and the next receivers' queries would fail."""
    project = shop(strict="max_attempts=2", other="")
    path = project.directory / "shop/receivers.py"
    leaving = f"from django.db import connection; connection.cursor().execute({statement!r})"
    path.write_text(path.read_text().replace('    work("strict", instance)', f"    {leaving}"))
    order(project, "good")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert texts(project) == ["other good 0"]
    ((error, state),) = project.run("SELECT error, state FROM bulksafe_parked")
    assert state == "dead"
    assert "leaves the connection with a different search_path" in error
