"""Two releases of one project, whose processes write side by side: see ``test_rollout.py``.

The old release has plain receivers, the new one the same functions as critical ones. Each receiver
writes its effect in the transaction of the write, so the effects show what ran for which write.
"""

import subprocess
import sys
from collections import Counter

from tests.migration.project import environment
from tests.operation.processes import PATIENCE, wait_until

MODELS = """
class Tag(models.Model):
    name = models.CharField(max_length=20)

class Order(models.Model):
    number = models.CharField(max_length=40)
    amount = models.IntegerField(default=0)
    checked = models.IntegerField(default=0)
    tags = models.ManyToManyField(Tag)

class Effect(models.Model):
    "What a receiver did for one write."
    receiver = models.CharField(max_length=20)
    write = models.CharField(max_length=60)
"""

BODIES = """
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from shop.models import Effect, Order

def note(receiver, write):
    Effect.objects.create(receiver=receiver, write=write)

def check(sender, instance, **kwargs):
    instance.checked = instance.amount
    note("check", f"{instance.number} {instance.amount}")

def keep(sender, instance, created, **kwargs):
    assert instance.checked == instance.amount
    note("keep", f"{instance.number} {instance.amount}")

def notify(sender, instance, **kwargs):
    note("notify", f"{instance.number} {instance.amount}")

def forget(sender, instance, **kwargs):
    note("forget", instance.number)

def tagged(sender, instance, action, pk_set, **kwargs):
    if action == "post_add":
        note("tagged", instance.number)
"""

OLD = (
    BODIES
    + """
pre_save.connect(check, sender=Order)
post_save.connect(keep, sender=Order)
post_save.connect(notify, sender=Order)
post_delete.connect(forget, sender=Order)
m2m_changed.connect(tagged, sender=Order.tags.through)
"""
)

NEW = (
    "import bulksafe\n"
    + BODIES
    + """
bulksafe.critical(pre_save, sender=Order)(check)
bulksafe.critical(post_save, sender=Order)(keep)
bulksafe.critical(post_save, sender=Order, run="after_commit")(notify)
bulksafe.critical(post_delete, sender=Order)(forget)
bulksafe.critical(m2m_changed, sender=Order.tags.through)(tagged)
"""
)

#: Writes until a file appears: creates, saves, adds links and deletes. Half of the time in one
#: transaction, and each fifth of these at REPEATABLE READ.
WORKER = """
import pathlib
import sys
import django
django.setup()
from django.db import DatabaseError, connection, transaction
from django.db.utils import OperationalError
from shop.models import Order, Tag

REPEATABLE_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
name, stop, log = sys.argv[1:]
tag = Tag.objects.first()

def write(number, done):
    order = Order.objects.create(number=number)
    done.append(f"check,keep,notify {number} 0")
    order.amount = 1
    order.save()
    done.append(f"check,keep,notify {number} 1")
    Order.objects.get(pk=order.pk).tags.add(tag)
    done.append(f"tagged {number}")
    order.delete()
    done.append(f"forget {number}")

with open(log, "w") as output:
    turn = 0
    while not pathlib.Path(stop).exists():
        turn += 1
        done = []
        try:
            if turn % 2:
                write(f"{name}-{turn}", done)
            else:
                with transaction.atomic():
                    if turn % 10 == 0:
                        connection.cursor().execute(REPEATABLE_READ)
                    write(f"{name}-{turn}", done)
        except DatabaseError as error:
            done = [f"refused {name}-{turn} {type(error).__name__}: {error}".replace("\\n", " ")]
        print(*done, sep="\\n", file=output, flush=True)
"""


class Writers:
    """Processes of a release that write until they are ended."""

    def __init__(self, release, name, count):
        self.release = release
        self.stop = release / f"{name}.stop"
        self.logs = [release / f"{name}{number}.log" for number in range(count)]
        variables = environment(PYTHONPATH=f"{release}:{environment()['PYTHONPATH']}")
        self.processes = []
        for log in self.logs:
            with log.with_suffix(".err").open("w") as errors:
                arguments = [sys.executable, "worker.py", log.stem, str(self.stop), str(log)]
                self.processes.append(
                    subprocess.Popen(arguments, cwd=release, env=variables, stderr=errors)
                )

    @property
    def written(self):
        """The number of writes so far of the process that has written least."""
        for process, log in zip(self.processes, self.logs, strict=True):
            assert process.poll() is None, log.with_suffix(".err").read_text()
        return min(log.read_text().count("\n") if log.exists() else 0 for log in self.logs)

    def end(self):
        self.stop.touch()
        for process, log in zip(self.processes, self.logs, strict=True):
            assert process.wait(PATIENCE) == 0, log.with_suffix(".err").read_text()

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()


def go_on(*groups, writes=170):
    """Wait until each process has made some more writes."""
    begun = [group.written for group in groups]
    wait_until(lambda: all(g.written >= b + writes for g, b in zip(groups, begun, strict=True)))


def expected(*releases):
    """The effects of all writes that the logs name, and the writes that were refused."""
    effects, refused, writes = Counter(), [], 0
    for release in releases:
        for log in release.glob("*.log"):
            for line in log.read_text().splitlines():
                names, _, write = line.partition(" ")
                if names == "refused":
                    refused.append(line)
                    continue
                writes += 1
                effects.update((name, write) for name in names.split(","))
    return effects, refused, writes
