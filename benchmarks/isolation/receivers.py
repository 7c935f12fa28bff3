"""Receivers of two queues that note when they are called, and of a third that misbehave."""

import ctypes
import os
import signal
import time

from django.db.models.signals import post_save

from benchmarks.isolation.models import Locked, Misdeed, Ping
from benchmarks.isolation.workloads import BAD, MAX_ATTEMPTS, TIMEOUT
from bulksafe import critical

CALLS = os.environ.get("ISOLATION_CALLS", os.devnull)


def note(queue, key):
    """Append the time of a call. One write, so that processes do not mix their lines."""
    now = time.monotonic()
    file = os.open(CALLS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{queue} {key} {now}\n".encode())
    finally:
        os.close(file)


@critical(post_save, sender=Ping, run="after_commit", dispatch_uid="inside", queue="inside")
def inside(instance, **kwargs):
    note("inside", instance.pk)


@critical(
    post_save,
    sender=Ping,
    run="after_commit",
    dispatch_uid="outside",
    queue="outside",
    atomic=False,
)
def outside(instance, **kwargs):
    note("outside", instance.pk)


def hang():
    time.sleep(3600)


def end_process():
    os._exit(3)


def sleep_in_c():
    """With the interpreter's lock, and deaf to the signal that ends a late call."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    ctypes.PyDLL(None).sleep(3600)


def wait_for_lock():
    Locked.objects.count()


def eat_memory():
    """4 MB at a time. With pauses, so that it does not also use up the CPU, which is shared."""
    hoard = []
    while True:
        hoard.append(bytes(range(256)) * (4 << 12))
        time.sleep(0.01)


DEEDS = {
    "hang": hang,
    "exit": end_process,
    "C": sleep_in_c,
    "lock": wait_for_lock,
    "memory": eat_memory,
}


def misbehave(instance, **kwargs):
    note(BAD, instance.pk)
    DEEDS[instance.deed]()


for atomic in (True, False):
    critical(
        post_save,
        sender=Misdeed,
        run="after_commit",
        dispatch_uid=f"bad, atomic={atomic}",
        queue=BAD,
        atomic=atomic,
        max_attempts=MAX_ATTEMPTS,
        timeout=TIMEOUT,
    )(misbehave)
