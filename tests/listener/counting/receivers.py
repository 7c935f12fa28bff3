"""One receiver with an effect in the database, one with an effect outside."""

import os

from django.db.models.signals import post_save

from bulksafe import critical
from tests.listener.counting import hooks
from tests.listener.counting.models import Counter, Seen

hooks.install()

OUTSIDE = os.environ.get("COUNTING_OUTSIDE", os.devnull)


def known(*, dispatch_uid, **options):
    """The receivers that the present version of the code has."""
    if "COUNTING_OLD" in os.environ:
        return lambda function: function
    return critical(
        post_save, sender=Counter, run="after_commit", dispatch_uid=dispatch_uid, **options
    )


@known(dispatch_uid="see")
def see(instance, old, event_id, using, **kwargs):
    hooks.do_deed("see", instance)
    Seen.objects.using(using).create(
        counter=instance.pk, old=old and old.version, new=instance.version, event_id=event_id
    )


@known(dispatch_uid="notify", atomic=False, queue="outside")
def notify(instance, old, event_id, **kwargs):
    hooks.do_deed("notify", instance)
    line = f"{instance.pk} {old.version if old else '-'} {instance.version} {event_id}\n"
    file = os.open(OUTSIDE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
