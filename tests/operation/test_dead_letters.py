"""A failing receiver: which events wait, which continue, and how it recovers."""

import json

import pytest

from tests.operation.conftest import change, declare, mend, order, texts

pytestmark = pytest.mark.once

BOTH = pytest.mark.parametrize("atomic", [True, False])


def status(project, code=1):
    return json.loads(project.manage("bulksafe", "status", "--parked", "--json", code=code).stdout)


def parked(project, code=1):
    return [
        (event["receiver"], event["key"], event["state"], event["attempts"])
        for event in status(project, code)["parked"]
    ]


@BOTH
def test_a_failing_row_blocks_only_itself_and_is_delivered_after_the_fix(shop, atomic):
    project = shop(strict=f"max_attempts=3, atomic={atomic}")
    for number in ("good", "bad", "fine"):
        order(project, number)
    for number in ("good", "bad", "fine"):
        change(project, number, 1)

    failed = project.manage("bulksafe", "listen", "--once", code=1)

    assert "ValueError: cannot ship bad" in failed.stderr
    assert "attempt 3 of 3" in failed.stderr
    assert sorted(texts(project)) == [
        "strict fine 0",
        "strict fine 1",
        "strict good 0",
        "strict good 1",
    ]
    # The later change of the row waits behind the dead letter, and has not been tried.
    assert parked(project) == [("strict", "2", "dead", 3), ("strict", "2", "waiting", 0)]

    change(project, "bad", 2)
    project.manage("bulksafe", "listen", "--once")
    assert parked(project)[2:] == [("strict", "2", "waiting", 0)]

    mend(project)
    project.manage("bulksafe", "retry", "--dead")
    project.manage("bulksafe", "listen", "--once")
    assert texts(project)[4:] == ["strict bad 0", "strict bad 1", "strict bad 2"]
    assert parked(project, code=0) == []


@BOTH
def test_a_dead_letter_that_is_skipped(shop, atomic):
    project = shop(lenient=f'max_attempts=2, on_dead="skip", atomic={atomic}')
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)
    change(project, "bad", 1)
    mend(project)

    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["lenient bad 1"]
    assert parked(project) == [("lenient", "1", "dead", 2)]
    project.manage("bulksafe", "retry", "--all")
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == ["lenient bad 1", "lenient bad 0"]


def test_events_behind_a_skipped_dead_letter_are_tried_in_turn(shop):
    project = shop(lenient='max_attempts=2, on_dead="skip"')
    order(project, "bad")
    change(project, "bad", 1)

    project.manage("bulksafe", "listen", "--once", code=1)

    assert parked(project) == [("lenient", "1", "dead", 2), ("lenient", "1", "dead", 2)]


def test_a_failure_keeps_the_other_receivers_effects(shop):
    project = shop(first="", strict="max_attempts=1", last="")
    project.write(
        "shop/receivers.py",
        (project.directory / "shop/receivers.py")
        .read_text()
        .replace('    work("first", instance)', '    Log.objects.create(text="first")')
        .replace('    work("last", instance)', '    Log.objects.create(text="last")'),
    )
    order(project, "bad")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert texts(project) == ["first", "last"]


@BOTH
def test_two_receivers_that_fail_on_the_same_event(shop, atomic):
    project = shop(one=f"max_attempts=2, atomic={atomic}", two=f"max_attempts=3, atomic={atomic}")
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)
    assert sorted(parked(project)) == [("one", "1", "dead", 2), ("two", "1", "dead", 3)]

    mend(project)
    project.manage("bulksafe", "retry", "--all")
    project.manage("bulksafe", "listen", "--once")

    assert sorted(texts(project)) == ["one bad 0", "two bad 0"]
    assert parked(project, code=0) == []


def test_a_dead_letter_shows_traceback_attempts_and_event(shop):
    project = shop(strict="max_attempts=2")
    with project.connect() as connection, connection.transaction():
        connection.execute("SELECT set_config('bulksafe.context', '{\"user\": 7}', true)")
        connection.execute("INSERT INTO shop_order (number, amount) VALUES ('bad', 5)")
    project.manage("bulksafe", "listen", "--once", code=1)
    number = str(status(project)["parked"][0]["id"])

    shown = project.manage("bulksafe", "status", "--id", number, code=1).stdout

    assert "Traceback (most recent call last)" in shown
    assert 'raise ValueError(f"cannot ship {instance.number}")' in shown
    assert "attempts: 2" in shown
    assert "state: dead" in shown
    assert "'amount': 5" in shown
    assert "'user': 7" in shown
    listed = project.manage("bulksafe", "status", "--parked", code=1).stdout
    assert "ValueError: cannot ship bad" in listed
    assert listed.splitlines()[-1].split()[:6] == ["1", "dead", "2", "strict", "shop_order", "1"]


def test_discard_drops_the_event_and_unblocks_its_followers(shop):
    project = shop(strict="max_attempts=1")
    order(project, "bad")
    change(project, "bad", 1)
    project.manage("bulksafe", "listen", "--once", code=1)
    dead = next(e["id"] for e in status(project)["parked"] if e["state"] == "dead")
    mend(project)

    project.manage("bulksafe", "discard", str(dead))
    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["strict bad 1"]


def test_prune_takes_old_dead_letters_only(shop):
    project = shop(strict="max_attempts=1")
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)

    assert "Dead letters discarded: 0." in project.manage("bulksafe", "prune").stdout
    project.run("UPDATE bulksafe_parked SET parked_at = now() - interval '31 days'")
    assert "Dead letters discarded: 1." in project.manage("bulksafe", "prune").stdout


def test_prune_keeps_a_queue_whose_dead_letters_status_would_not_count(shop):
    project = shop(strict="max_attempts=1, queue='mail'")
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)
    declare(project)

    said = project.manage("bulksafe", "prune", "--queues", code=1).stdout
    assert "The queue 'mail' was kept, because it has parked events or dead letters" in said
    assert "with atomic=True (1)" in said
    assert {q["queue"]: q["dead"] for q in status(project)["queues"]}["mail"] == 1

    project.manage("bulksafe", "discard", "--queue", "mail")
    said = project.manage("bulksafe", "prune", "--queues").stdout
    assert "The queue 'mail' was forgotten" in said


def test_prune_counts_the_parked_events_of_its_own_lane_only(shop):
    project = shop(strict="max_attempts=1, queue='mail'")
    declare(project, strict="max_attempts=1, queue='mail', atomic=False")
    project.make()
    project.migrate()
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)

    said = project.manage("bulksafe", "prune", "--queues").stdout

    assert "The queue 'mail' was forgotten" in said
    assert parked(project) == [("strict", "1", "dead", 1)]


@BOTH
def test_a_receiver_with_another_name_and_queue(shop, atomic):
    project = shop(old_name="max_attempts=1, queue='mail'")
    order(project, "bad")
    change(project, "bad", 1)
    project.manage("bulksafe", "listen", "--once", code=1)
    declare(project, new_name=f"max_attempts=1, queue='post', atomic={atomic}")
    project.migrate()
    mend(project)

    said = project.manage("bulksafe", "retry", "--all", "--rename", "new_name").stdout
    project.manage("bulksafe", "listen", "--once")

    assert said.splitlines() == [
        "1 parked event is due now.",
        "1 more waits for an earlier event of the same row.",
    ]
    assert texts(project) == ["new_name bad 0", "new_name bad 1"]
    assert (
        "The queue 'mail' was forgotten" in project.manage("bulksafe", "prune", "--queues").stdout
    )


def test_events_that_are_moved_wait_for_those_that_are_there(shop):
    """Their order is that of the row's changes, also among the events of the new receiver."""
    project = shop(first="max_attempts=1, on_dead='skip'", second="max_attempts=1, on_dead='skip'")
    order(project, "bad")
    change(project, "bad", 1)
    project.manage("bulksafe", "listen", "--once", code=1)
    mend(project)
    for receiver, amount in (("first", "0"), ("second", "1")):
        project.run(
            "DELETE FROM bulksafe_parked WHERE receiver = %s AND \"new\" ->> 'amount' = %s",
            receiver,
            amount,
        )

    project.manage("bulksafe", "retry", "--receiver", "second")
    said = project.manage("bulksafe", "retry", "--receiver", "first", "--rename", "second").stdout

    project.manage("bulksafe", "listen", "--once")

    assert "1 more waits for an earlier event" in said
    assert texts(project) == ["second bad 0", "second bad 1"]


def test_a_receiver_with_another_name(shop):
    project = shop(old_name="max_attempts=1")
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)
    order(project, "good")
    declare(project, new_name="max_attempts=1")
    project.assert_nothing_to_make()

    # Untried events go to the new name; failed events wait for a decision.
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == ["new_name good 0"]
    assert (
        "'old_name', which is not in this code"
        in project.manage("bulksafe", "doctor", code=1).stdout
    )
    project.manage("bulksafe", "retry", "--all")
    project.manage("bulksafe", "listen", "--once")
    assert parked(project, code=1) == [("old_name", "1", "waiting", 0)]

    mend(project)
    hint = project.manage("bulksafe", "retry", "--all", "--rename", "new_nam", code=2).stderr
    assert "Did you mean 'new_name'?" in hint
    project.manage("bulksafe", "retry", "--receiver", "old_name", "--rename", "new_name")
    project.manage("bulksafe", "listen", "--once")
    assert texts(project) == ["new_name good 0", "new_name bad 0"]


def test_a_receiver_was_removed(shop):
    project = shop(strict="max_attempts=1", other="")
    order(project, "bad")
    project.manage("bulksafe", "listen", "--once", code=1)
    declare(project)
    project.make()
    project.migrate()
    change(project, "bad", 1)

    project.manage("bulksafe", "listen", "--once")

    assert {name for name, *_ in parked(project)} == {"strict", "other"}


def test_a_listener_whose_code_lacks_the_table(shop):
    """As during a deployment: the migration has run, the writers are new, the listener is old."""
    project = shop(notify="", strict="max_attempts=1")
    new_code = (project.directory / "shop/receivers.py").read_text()
    declare(project)
    order(project, "good")
    change(project, "good", 1)

    project.manage("bulksafe", "listen", "--once")
    assert parked(project, code=None) == []  # they are left alone
    project.run("SELECT setval('bulksafe_outbox_seq', 1000)")  # as if many events had come since

    old = project.manage("bulksafe", "listen", "--once")
    assert "has no receivers in this code" in old.stderr
    assert [event[:3] for event in parked(project, code=1)] == [
        ("*", "1", "waiting"),
        ("*", "1", "waiting"),
    ]
    assert "code has no receivers for their" in project.manage("bulksafe", "doctor", code=1).stdout

    project.write("shop/receivers.py", new_code)
    change(project, "good", 2)
    project.manage("bulksafe", "listen", "--once")
    for name in ("notify", "strict"):
        assert [text for text in texts(project) if text.startswith(name)] == [
            f"{name} good {amount}" for amount in (0, 1, 2)
        ]
    assert parked(project, code=0) == []


def test_a_column_that_was_removed_while_events_waited(shop):
    project = shop(strict="")
    order(project, "good", 5)
    project.models(
        """
        class Order(models.Model):
            number = models.CharField(max_length=20)
            @property
            def amount(self):
                return "gone"
        class Log(models.Model):
            text = models.TextField()
        class Mended(models.Model):
            pass
        """
    )
    project.make()
    project.migrate()

    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["strict good gone"]


def test_a_column_whose_new_type_does_not_fit_the_image(shop):
    project = shop(strict="max_attempts=1")
    order(project, "not a number")
    order(project, "17")
    project.run("ALTER TABLE shop_order ALTER number TYPE integer USING 17")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert texts(project) == []  # the receiver expects text
    errors = {event["error"].partition(":")[0] for event in status(project)["parked"]}
    assert errors == {"Unreadable", "AttributeError"}
    project.run("ALTER TABLE shop_order ALTER number TYPE varchar(20) USING 'back'")
    project.manage("bulksafe", "retry", "--all")
    project.manage("bulksafe", "listen", "--once")
    # Two rows: in whichever order.
    assert sorted(texts(project)) == ["strict 17 0", "strict not a number 0"]


def test_a_receiver_that_hides_a_database_error(shop):
    """Django would roll the savepoint back without a word, and with it the others' effects."""
    project = shop(first="", hiding="max_attempts=1")
    project.write(
        "shop/receivers.py",
        (project.directory / "shop/receivers.py")
        .read_text()
        .replace(
            '    work("hiding", instance)',
            """    try:
        Log(pk=Log.objects.first().pk, text="twice").save(force_insert=True)
    except Exception:
        pass""",
        ),
    )
    order(project, "good")

    project.manage("bulksafe", "listen", "--once", code=1)

    assert texts(project) == ["first good 0"]
    (event,) = status(project)["parked"]
    assert event["receiver"] == "hiding"
    assert "caught a database error without a savepoint" in event["error"]


# Receivers that write to the rows that they are called for.


def reacting(project, text):
    project.write("shop/receivers.py", RECEIVERS + text)


RECEIVERS = """
import bulksafe
from django.db.models import F
from django.db.models.signals import post_save
from shop.models import Log, Order

def critical(name):
    return bulksafe.critical(
        post_save, sender=Order, run="after_commit", dispatch_uid=name, max_attempts=1
    )
"""


@pytest.mark.parametrize(
    ("write", "seen"),
    [
        # The receivers of a change share the instance, as with Django's signals.
        ("instance.amount += 1; instance.save()", ["1", "1"]),
        ("Order.objects.filter(pk=instance.pk).update(amount=F('amount') + 1)", ["0", "1"]),
    ],
)
def test_a_receiver_is_not_called_for_its_own_writes_but_others_are(shop, write, seen):
    project = shop(placeholder="")
    reacting(
        project,
        f"""
@critical("counting")
def counting(sender, instance, **kwargs):
    {write}

@critical("logging")
def logging(sender, instance, **kwargs):
    Log.objects.create(text=f"{{instance.amount}}")
""",
    )
    order(project, "a")

    project.manage("bulksafe", "listen", "--once")

    assert project.run("SELECT amount FROM shop_order") == [(1,)]
    assert texts(project) == seen


def test_writes_of_a_receiver_are_delivered_during_other_commits(shop):
    """Other transactions begin and end between two runs of a claim, one of whose cursors moved."""
    project = shop(placeholder="")
    reacting(
        project,
        """
@critical("counting")
def counting(sender, instance, **kwargs):
    Order.objects.filter(pk=instance.pk).update(amount=F('amount') + 1)

@critical("logging")
def logging(sender, instance, **kwargs):
    Log.objects.create(text=f"{instance.amount}")

import psycopg
from bulksafe.outbox.store import Store
from django.db import connection

rows = Store.poll

def repeated(store, name, *args, **kwargs):
    if name == "claim" and rows(store, name, *args, **kwargs):
        with psycopg.connect(**connection.get_connection_params()) as other:
            other.execute("SELECT pg_current_xact_id()")
    return rows(store, name, *args, **kwargs)

Store.poll = repeated
""",
    )
    order(project, "a")

    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["0", "1"]


def test_receivers_that_maintain_each_other_converge(shop):
    project = shop(placeholder="")
    reacting(
        project,
        """
@critical("even")
def even(sender, instance, **kwargs):
    Order.objects.filter(pk=instance.pk).update(amount=instance.amount + instance.amount % 2)

@critical("small")
def small(sender, instance, **kwargs):
    Order.objects.filter(pk=instance.pk).update(amount=min(instance.amount, 10))
""",
    )
    order(project, "a", 13)

    project.manage("bulksafe", "listen", "--once")

    assert project.run("SELECT amount FROM shop_order") == [(10,)]


def test_receivers_that_never_agree_are_cut_with_an_error_that_names_them(shop):
    project = shop(placeholder="")
    reacting(
        project,
        """
@critical("up")
def up(sender, instance, **kwargs):
    Order.objects.filter(pk=instance.pk).update(amount=1)

@critical("down")
def down(sender, instance, **kwargs):
    Order.objects.filter(pk=instance.pk).update(amount=0)
""",
    )
    order(project, "a", 5)

    project.manage("bulksafe", "listen", "--once", code=1)

    errors = {event["error"] for event in status(project)["parked"] if event["error"]}
    assert errors
    for error in errors:
        assert "EndlessWrites: Receivers react to each other's writes without end" in error
        assert "up" in error
        assert "down" in error
        assert "shop.Order 1, where amount changed" in error
