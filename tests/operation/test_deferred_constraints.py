"""What receivers leave for the COMMIT: deferred constraints that wait, or that are violated.

Django's foreign keys are deferred. The check of one waits for a session that has locked the
referenced row.
"""

import pytest

from tests.operation.conftest import CRITICAL, MODELS, RECEIVERS, order, texts
from tests.operation.processes import listening, wait_until
from tests.operation.test_dead_letters import parked

pytestmark = pytest.mark.once

FOREIGN_KEY = """
class Parent(models.Model):
    pass

class Child(models.Model):
    parent = models.ForeignKey(Parent, models.CASCADE)
"""

INSERTING = """
from django.db import connection
from shop.models import Child, Parent

@critical("referring", timeout=0.5, max_attempts=2)
def referring(sender, instance, **kwargs):
    if instance.number.startswith("bad"):
        Child.objects.create(parent_id=instance.amount)
    work("referring", type(instance)(number=instance.number.removeprefix("bad ")))

@bulksafe.critical(post_save, sender=Parent, dispatch_uid="inside")
def inside(sender, instance, **kwargs):
    Log.objects.create(text="inside")
    if Log.objects.filter(text="refuse").exists():
        raise ValueError("refused inside")

@critical("hidden", queue="hidden")
def hidden(sender, instance, **kwargs):
    if instance.number == "hidden":
        connection.cursor().execute("SELECT hidden_parent()")

@critical("other", queue="other")
def other(sender, instance, **kwargs):
    work("other", type(instance)(number=instance.number.removeprefix("bad ")))
"""


@pytest.fixture
def family(project):
    project.settings('BULKSAFE = {"RETRY_DELAY": 0.000001, "SLOW_CALL": 0.3}')
    project.models(MODELS + FOREIGN_KEY)
    project.write("shop/receivers.py", RECEIVERS + CRITICAL + INSERTING)
    project.make()
    project.migrate()
    project.python(
        "from shop.models import Log, Parent; Parent().save(); Log.objects.all().delete()"
    )
    return project


def test_a_check_that_waits_for_a_lock_counts_against_the_timeout(family):
    with family.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT FROM shop_parent FOR UPDATE")
        order(family, "bad 1", amount=1)
        order(family, "good")
        with listening(family) as (_, log):
            wait_until(lambda: "dead letter" in log.read_text(), log)
            wait_until(lambda: len(texts(family)) == 3, log)
            ((error,),) = family.run("SELECT error FROM bulksafe_parked")
        holder.execute("ROLLBACK")

    assert sorted(texts(family)) == ["other 1 0", "other good 0", "referring good 0"]
    assert "CallTimedOut: referring exceeded its timeout of 0.5 s" in error
    assert parked(family) == [("referring", "1", "dead", 2)]


def test_a_check_that_waits_for_a_moment_only_delays_its_row(family):
    with family.connect() as holder, listening(family) as (_, log):
        holder.execute("BEGIN")
        holder.execute("SELECT FROM shop_parent FOR UPDATE")
        order(family, "bad 1", amount=1)
        wait_until(lambda: "its calls run alone" in log.read_text(), log)
        holder.execute("ROLLBACK")
        wait_until(lambda: "referring 1 0" in texts(family), log)

    assert family.run("SELECT count(*) FROM shop_child") == [(1,)]


def test_a_violation_is_an_attempt_of_its_own_call_only(family):
    for number in ("good", "bad 1", "better"):
        order(family, number, amount=999)

    log = family.manage("bulksafe", "listen", "--once", code=1).stderr

    # Those of "other" and "hidden" and two of "referring"; not those of the batch that failed.
    assert log.splitlines()[-1].endswith("stopped after 8 calls")
    done = [text for text in texts(family) if text.startswith("referring")]
    assert sorted(done) == ["referring better 0", "referring good 0"]
    assert parked(family) == [("referring", "2", "dead", 2)]
    ((error,),) = family.run("SELECT error FROM bulksafe_parked")
    assert "IntegrityError" in error


def test_receivers_in_the_transaction_of_hidden_writes_still_run(family):
    """The check comes before the commit, and so does what these receivers do."""
    family.run(
        "CREATE FUNCTION hidden_parent() RETURNS void LANGUAGE sql AS "
        "$$ INSERT INTO shop_parent DEFAULT VALUES $$"
    )
    order(family, "hidden")

    family.manage("bulksafe", "listen", "--once")

    assert family.run("SELECT count(*) FROM shop_parent") == [(2,)]
    assert texts(family).count("inside") == 1


def test_receivers_of_hidden_writes_that_fail_are_an_attempt_of_the_call(family):
    """Not an internal error, after which the whole queue would wait."""
    family.run(
        "CREATE FUNCTION hidden_parent() RETURNS void LANGUAGE sql AS "
        "$$ INSERT INTO shop_parent DEFAULT VALUES $$; "
        "INSERT INTO shop_log (text) VALUES ('refuse')"
    )
    order(family, "hidden")

    log = family.manage("bulksafe", "listen", "--once", code=1).stderr

    assert "internal error" not in log
    ((receiver, error),) = family.run("SELECT receiver, error FROM bulksafe_parked")
    assert (receiver, error.splitlines()[0]) == ("hidden", "ValueError: refused inside")


#: A check of a batch that nothing but SIGKILL ends, as behind a proxy that drops the cancellation.
DEAF = """
import signal, time
from bulksafe.dispatch.caller import Caller

checked = Caller.check_constraints

def check_constraints(self, call, limit):
    if call is None:
        self.activity.begin_check(limit)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        time.sleep(3600)
    checked(self, call, limit)

Caller.check_constraints = check_constraints
"""


def test_no_receiver_is_blamed_for_the_check_of_a_batch(family):
    path = family.directory / "shop/receivers.py"
    path.write_text(path.read_text().replace("max_attempts=2", "max_attempts=1") + DEAF)
    order(family, "good")

    done = family.manage("bulksafe", "listen", "--once", code=None)

    assert "the check of a batch's constraints exceeded its timeout" in done.stderr
    assert "failed (attempt" not in done.stderr
    assert sorted(texts(family)) == ["other good 0", "referring good 0"]
