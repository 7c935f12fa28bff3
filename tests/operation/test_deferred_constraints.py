"""What receivers leave for the COMMIT: deferred constraints that wait, or that are violated.

Django's foreign keys are deferred. The check of one waits for a session that has locked the
referenced row.
"""

import pytest

from tests.operation.conftest import MODELS, RECEIVERS, order, texts
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
from shop.models import Child

def critical(name, **options):
    return bulksafe.critical(
        post_save, sender=Order, run="after_commit", dispatch_uid=name, **options
    )

@critical("referring", timeout=0.5, max_attempts=2)
def referring(sender, instance, **kwargs):
    if instance.number.startswith("bad"):
        Child.objects.create(parent_id=instance.amount)
    work("referring", type(instance)(number=instance.number.removeprefix("bad ")))

@critical("other", queue="other")
def other(sender, instance, **kwargs):
    work("other", type(instance)(number=instance.number.removeprefix("bad ")))
"""


@pytest.fixture
def family(project):
    project.settings('BULKSAFE = {"RETRY_DELAY": 0.000001, "SLOW_CALL": 0.3}')
    project.models(MODELS + FOREIGN_KEY)
    project.write("shop/receivers.py", RECEIVERS + INSERTING)
    project.make()
    project.migrate()
    project.run("INSERT INTO shop_parent DEFAULT VALUES")
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

    family.manage("bulksafe", "listen", "--once", code=1)

    done = [text for text in texts(family) if text.startswith("referring")]
    assert sorted(done) == ["referring better 0", "referring good 0"]
    assert parked(family) == [("referring", "2", "dead", 2)]
    ((error,),) = family.run("SELECT error FROM bulksafe_parked")
    assert "IntegrityError" in error
