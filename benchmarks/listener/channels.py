"""The channels and listeners of django-pgpubsub. Importing this registers their triggers.

``lock_notifications`` is its way to keep notifications until they are dealt with, once.
"""

from dataclasses import dataclass

from pgpubsub import TriggerChannel, post_save_listener

from benchmarks.listener.models import Published, PublishedWriting, Seen
from benchmarks.listener.receivers import NOTHING, WRITE, calls


@dataclass
class Orders(TriggerChannel):
    model = Published
    lock_notifications = True


@dataclass
class OrdersWriting(TriggerChannel):
    model = PublishedWriting
    lock_notifications = True


@post_save_listener(Orders)
def do_nothing(old, new):
    calls.note()


@post_save_listener(OrdersWriting)
def write(old, new):
    calls.note()
    Seen.objects.create(order=new.pk, step=new.step)


CHANNELS = {NOTHING: Orders, WRITE: OrdersWriting}
MODELS = {NOTHING: Published, WRITE: PublishedWriting}
