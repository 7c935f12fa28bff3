"""Users: names, e-mails, tokens, roles, who changed them."""

import hashlib
import threading

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.acceptance.pairs.case import CREATE, UPDATE, practice

_request = threading.local()


def account_row(m, n):
    return {
        "username": f"user{n}",
        "email": f"User{n}@Example.COM",
        "first_name": f" ada {n}",
        "last_name": "LOVELACE",
    }


def accounts(m):
    """Three accounts with the keys 101 to 103, which no sequence reaches."""
    for n in (101, 102, 103):
        m.Account.objects.create(pk=n, username=f"known{n}", email=f"known{n}@example.com")


OF_ACCOUNTS = {
    "model": "Account",
    "row": account_row,
    "values": {"first_name": "Grace"},
    "new": lambda n: {"first_name": f"grace {n}"},
}


@practice("the full name from its parts", **OF_ACCOUNTS)
def full_name(m):
    def normalise(sender, instance, **kwargs):
        user, _, domain = instance.email.partition("@")
        instance.email = f"{user}@{domain.lower()}"
        instance.first_name = instance.first_name.strip().title()
        instance.last_name = instance.last_name.strip().title()
        instance.full_name = f"{instance.first_name} {instance.last_name}".strip()

    return [(pre_save, m.Account, normalise)]


def _taken(m):
    def refuse(sender, instance, **kwargs):
        others = sender.objects.exclude(pk=instance.pk)
        if instance.email and others.filter(email__iexact=instance.email).exists():
            raise ValidationError({"email": f"{instance.email} is taken."})

    return [(pre_save, m.Account, refuse)]


@practice(
    "an e-mail that is stored already",
    setup=accounts,
    **OF_ACCOUNTS
    | {
        "kinds": (CREATE,),
        "row": lambda m, n: {"email": "KNOWN102@example.com" if n == 4 else f"new{n}@example.com"},
        "new": lambda n: {"email": f"other{n}@example.com"},
    },
)
def taken_before(m):
    return _taken(m)


@practice(
    "an e-mail that the same write stores twice",
    **OF_ACCOUNTS
    | {
        "kinds": (UPDATE,),
        "values": {"email": "same@example.com"},
        "new": lambda n: {"email": f"same{n % 5}@example.com"},
    },
)
def taken_by_a_sibling(m):
    return _taken(m)


@practice(
    "full_clean() before each save",
    **OF_ACCOUNTS
    | {
        "kinds": (CREATE, UPDATE),
        "values": {"role": "owner"},
        "new": lambda n: {"role": "admin" if n < 5 else "owner"},
    },
)
def cleaned(m):
    def clean(sender, instance, **kwargs):
        instance.full_clean()

    return [(pre_save, m.Account, clean)]


@practice("a token that is generated once", **OF_ACCOUNTS | {"kinds": (CREATE, UPDATE)})
def token(m):
    def generate(sender, instance, **kwargs):
        if not instance.token:
            instance.token = hashlib.sha256(instance.username.encode()).hexdigest()

    return [(pre_save, m.Account, generate)]


@practice(
    "confirmed again after a new e-mail",
    **OF_ACCOUNTS
    | {
        "kinds": (UPDATE,),
        "row": lambda m, n: account_row(m, n) | {"is_confirmed": True},
        "values": {"email": "user0@example.com"},
        "new": lambda n: {"email": f"user{n // 2 * 2}@example.com"},
    },
)
def confirmed_again(m):
    def compare(sender, instance, **kwargs):
        old = sender.objects.filter(pk=instance.pk).only("email").first()
        if old is not None and old.email.lower() != instance.email.lower():
            instance.is_confirmed = False
            transaction.on_commit(lambda: m.calls.append(("confirm", instance.email)))

    return [(pre_save, m.Account, compare)]


@practice(
    "the staff flag of the role, by update()",
    **OF_ACCOUNTS
    | {
        "values": {"role": "admin"},
        "new": lambda n: {"role": ("member", "admin")[n % 2]},
    },
)
def staff_flag(m):
    def set_flag(sender, instance, **kwargs):
        is_staff = instance.role in {"admin", "editor"}
        if instance.is_staff != is_staff:
            type(instance).objects.filter(pk=instance.pk).update(is_staff=is_staff)
            instance.refresh_from_db()

    return [(post_save, m.Account, set_flag)]


@practice(
    "the last administrator may not step down",
    **OF_ACCOUNTS
    | {
        "kinds": (UPDATE,),
        "row": lambda m, n: account_row(m, n) | {"role": "admin"},
        "values": {"role": "member"},
        "new": lambda n: {"role": "member" if n % 2 else "admin"},
    },
)
def last_administrator(m):
    def refuse(sender, instance, **kwargs):
        others = sender.objects.filter(role="admin").exclude(pk=instance.pk)
        if instance.role != "admin" and not others.exists():
            raise PermissionDenied("An administrator must remain.")

    return [(pre_save, m.Account, refuse)]


@practice("who has changed it", prepare=lambda m: setattr(_request, "user", "root"), **OF_ACCOUNTS)
def changed_by(m):
    def stamp(sender, instance, raw, **kwargs):
        if not raw:
            instance.changed_by = getattr(_request, "user", "")

    def note(sender, instance, **kwargs):
        m.log(f"{_request.user} deleted {instance.username}")

    return [(pre_save, m.Account, stamp), (post_delete, m.Account, note)]


@practice("a welcome after the commit", **OF_ACCOUNTS)
def welcome(m):
    def send(sender, instance, created, **kwargs):
        if created:
            transaction.on_commit(lambda: m.calls.append(("welcome", instance.email)))
        m.calls.append(("cache", instance.username))

    def forget(sender, instance, **kwargs):
        transaction.on_commit(lambda: m.calls.append(("farewell", instance.email)))

    return [(post_save, m.Account, send), (pre_delete, m.Account, forget)]
