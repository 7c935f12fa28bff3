"""Users: profiles, teams, defaults, names, confirmations, who may be removed."""

import hashlib
import threading

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, practice

_request = threading.local()


def account_row(m, n):
    return {
        "username": f"user{n}",
        "email": f"User{n}@Example.COM",
        "first_name": f" ada {n}",
        "last_name": "LOVELACE",
    }


def accounts(m):
    for n in (1, 2, 3):
        m.Account.objects.create(pk=n, username=f"known{n}", email=f"known{n}@example.com")


def teams(m):
    m.Team.objects.create(name="members", rights=["read"], defaults={"theme": "dark", "page": 20})
    m.Team.objects.create(name="editors", rights=["read", "write"])


OF_ACCOUNTS = {
    "model": "Account",
    "row": account_row,
    "values": {"first_name": "Grace"},
    "new": lambda n: {"first_name": f"grace {n}"},
}


@practice("a profile for each account", **OF_ACCOUNTS)
def profile(m):
    def create_profile(sender, instance, created, **kwargs):
        if created:
            m.Profile.objects.get_or_create(
                account=instance, defaults={"display_name": instance.username}
            )

    return [(post_save, m.Account, create_profile)]


@practice("the profile is saved along with its account", **OF_ACCOUNTS)
def saved_along(m):
    def save_profile(sender, instance, created, **kwargs):
        if created:
            m.Profile.objects.create(account=instance)
        try:
            instance.profile.display_name = instance.first_name.strip()
            instance.profile.visits += 1
            instance.profile.save()
        except m.Profile.DoesNotExist:
            m.Profile.objects.create(account=instance)

    return [(post_save, m.Account, save_profile)]


@practice("the default team of a new account", setup=teams, **OF_ACCOUNTS)
def default_team(m):
    def join(sender, instance, created, **kwargs):
        if created:
            instance.teams.add(m.Team.objects.get(name="members"))

    def measure(sender, instance, action, reverse, pk_set, **kwargs):
        if action in {"post_add", "post_remove", "post_clear"} and not reverse:
            for team in m.Team.objects.filter(pk__in=pk_set or []):
                team.size = team.members.count()
                team.save(update_fields=["size"])

    return [(post_save, m.Account, join), (m2m_changed, m.Account.teams.through, measure)]


@practice(
    "the teams follow the role",
    setup=teams,
    **OF_ACCOUNTS
    | {
        "row": lambda m, n: account_row(m, n) | {"role": ("member", "editor")[n % 2]},
        "values": {"role": "editor"},
        "new": lambda n: {"role": ("member", "editor")[n % 3 % 2]},
    },
)
def teams_of_the_role(m):
    def follow(sender, instance, **kwargs):
        instance.teams.clear()
        team = m.Team.objects.get(name=f"{instance.role}s")
        team.members.add(instance)

    def leave(sender, instance, action, reverse, pk_set, **kwargs):
        if action == "pre_clear" and not reverse:
            instance.teams.update(size=F("size") - 1)
        elif action == "post_add" and reverse:
            m.Team.objects.filter(pk=instance.pk).update(size=F("size") + len(pk_set))

    return [(post_save, m.Account, follow), (m2m_changed, m.Account.teams.through, leave)]


@practice("rows of default settings", setup=teams, **OF_ACCOUNTS)
def default_settings(m):
    def create_settings(sender, instance, created, **kwargs):
        if created:
            defaults = m.Team.objects.get(name="members").defaults
            m.Setting.objects.bulk_create(
                [m.Setting(account=instance, key=k, value=v) for k, v in defaults.items()]
            )

    return [(post_save, m.Account, create_settings)]


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
        "row": lambda m, n: {"email": "KNOWN2@example.com" if n == 4 else f"new{n}@example.com"},
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
        instance.full_clean(exclude=["teams"])

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


@practice(
    "points for whoever invited the account",
    setup=accounts,
    **OF_ACCOUNTS
    | {
        "row": lambda m, n: account_row(m, n) | {"referrer_id": (1, 2, None)[n % 3]},
        "values": {"referrer": 3},
        "new": lambda n: {"referrer_id": 1 + n % 3},
    },
)
def points(m):
    def reward(sender, instance, created, **kwargs):
        if created and instance.referrer:
            instance.referrer.points = F("points") + 10
            instance.referrer.save(update_fields=["points"])
            instance.referrer.refresh_from_db()
            m.log(f"{instance.referrer.username} has {instance.referrer.points}")

    return [(post_save, m.Account, reward, {"row_by_row": True})]


@practice("a welcome after the commit", **OF_ACCOUNTS)
def welcome(m):
    def send(sender, instance, created, **kwargs):
        if created:
            transaction.on_commit(lambda: m.calls.append(("welcome", instance.email)))
        m.calls.append(("cache", instance.username))

    def forget(sender, instance, **kwargs):
        transaction.on_commit(lambda: m.calls.append(("farewell", instance.email)))

    return [(post_save, m.Account, send), (pre_delete, m.Account, forget)]


@practice("a duplicate that is caught", setup=accounts, **OF_ACCOUNTS | {"kinds": (CREATE, UPDATE)})
def caught(m):
    def remember(sender, instance, **kwargs):
        key = instance.first_name.strip()[:1]
        try:
            with transaction.atomic():
                m.Setting.objects.create(account_id=1, key=key, value=1)
        except IntegrityError:
            m.Setting.objects.filter(account_id=1, key=key).update(value=F("account_id") + 1)

    return [(post_save, m.Account, remember)]


ADDRESSES = {
    "model": "Address",
    "setup": accounts,
    "row": lambda m, n: {"account_id": 1 + n % 2, "street": f"Street {n}"},
    "values": {"city": "Bern"},
    "new": lambda n: {"city": f"City {n}"},
}


@practice("the first address is the default", **ADDRESSES | {"kinds": (CREATE, UPDATE)})
def first_address(m):
    def choose(sender, instance, **kwargs):
        siblings = instance.account.addresses.exclude(pk=instance.pk)
        if not siblings.filter(is_default=True).exists():
            instance.is_default = True

    return [(pre_save, m.Address, choose)]


@practice(
    "a new default for a deleted one",
    **ADDRESSES
    | {
        "kinds": (DELETE,),
        "row": lambda m, n: {"account_id": 1, "street": f"Street {n}", "is_default": n == 0},
    },
)
def next_default(m):
    def promote(sender, instance, **kwargs):
        remaining = sender.objects.filter(account_id=instance.account_id).order_by("pk").first()
        if instance.is_default and remaining is not None:
            remaining.is_default = True
            remaining.save(update_fields=["is_default"])
            m.log(f"{remaining.street} follows {instance.street}")

    return [(post_delete, m.Address, promote)]
