"""Belongings of users: profiles, teams, settings, addresses, points."""

from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, practice
from tests.acceptance.pairs.practices.accounts import OF_ACCOUNTS, account_row, accounts


def teams(m):
    m.Team.objects.create(name="members", rights=["read"], defaults={"theme": "dark", "page": 20})
    m.Team.objects.create(name="editors", rights=["read", "write"])


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


@practice(
    "points for the account that sent the invitation",
    setup=accounts,
    **OF_ACCOUNTS
    | {
        "row": lambda m, n: account_row(m, n) | {"referrer_id": (101, 102, None)[n % 3]},
        "values": {"referrer": 103},
        "new": lambda n: {"referrer_id": 101 + n % 3},
    },
)
def points(m):
    def reward(sender, instance, created, **kwargs):
        if created and instance.referrer:
            instance.referrer.points = F("points") + 10
            instance.referrer.save(update_fields=["points"])
            instance.referrer.refresh_from_db()
            m.log(f"{instance.referrer.username} has {instance.referrer.points}")

    return [(post_save, m.Account, reward)]


@practice("a duplicate that is caught", setup=accounts, **OF_ACCOUNTS | {"kinds": (CREATE, UPDATE)})
def caught(m):
    def remember(sender, instance, **kwargs):
        key = instance.first_name.strip()[:1]
        try:
            with transaction.atomic():
                m.Setting.objects.create(account_id=101, key=key, value=1)
        except IntegrityError:
            setting = m.Setting.objects.select_for_update().get(account_id=101, key=key)
            setting.value += 1
            setting.save()

    return [(post_save, m.Account, remember)]


ADDRESSES = {
    "model": "Address",
    "setup": accounts,
    "row": lambda m, n: {"account_id": 101 + n % 2, "street": f"Street {n}"},
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
        "row": lambda m, n: {"account_id": 101, "street": f"Street {n}", "is_default": n == 0},
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
