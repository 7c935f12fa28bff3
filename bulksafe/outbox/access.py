"""Privileges on bulksafe's own objects: only for the roles in the settings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.management import CommandError
from django.db import connections, transaction

from bulksafe import conf
from bulksafe.outbox import own
from bulksafe.outbox.store import Store
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

#: Privileges of roles that write through Django: receivers run in their transactions.
WRITER: Mapping[str, Sequence[str]] = {name: ["EXECUTE"] for name in own.WRITING}

_CHANGES = ["DELETE", "INSERT", "SELECT", "UPDATE"]

#: Privileges of roles that run ``bulksafe listen``, whose receivers write too.
LISTENER: Mapping[str, Sequence[str]] = {
    **WRITER,
    **{name: ["SELECT", "TRUNCATE"] for name in own.TABLES[:4]},
    **dict.fromkeys(own.TABLES[4:8], _CHANGES),
    "bulksafe_outbox_identity": ["SELECT", "UPDATE"],
    "bulksafe_outbox_seq": ["SELECT"],
    "bulksafe_outbox_slot": ["SELECT", "UPDATE"],
    "bulksafe_call_seq": ["USAGE"],
    "bulksafe_violation": ["DELETE", "SELECT"],
    "bulksafe_violation_limit": ["SELECT"],
}

#: Every role.
PUBLIC = "PUBLIC"


@dataclass(frozen=True, order=True)
class Privilege:
    """A privilege that a role has or should have.

    Attributes:
        kind: ``TABLE``, ``SEQUENCE`` or ``FUNCTION``.
        target: the object's name in SQL.
        role: the role.
        name: the privilege.
    """

    kind: str
    target: str
    role: str
    name: str


@dataclass(frozen=True)
class Access:
    """The privileges on bulksafe's objects in one database.

    Attributes:
        owner: the owner of the outbox.
        can_grant: whether the session's role may change them.
        wanted: what the settings grant.
        found: the privileges of roles other than the owners.
    """

    owner: str
    can_grant: bool
    wanted: frozenset[Privilege]
    found: frozenset[Privilege]

    @property
    def too_many(self) -> list[Privilege]:
        return sorted(self.found - self.wanted)

    @property
    def missing(self) -> list[Privilege]:
        return sorted(self.wanted - self.found)


def refuse_unknown_roles(using: str) -> None:
    """Refuse settings that name a role which the server does not have.

    Raises:
        CommandError: a setting lists such a role.
    """
    settings = conf.get()
    for key in ("WRITER_ROLES", "LISTENER_ROLES"):
        unknown = Store(using).rows("unknown_roles", {"roles": list(getattr(settings, key))})
        if unknown:
            named = ", ".join(repr(name) for (name,) in unknown)
            raise CommandError(
                f"BULKSAFE[{key!r}] lists {named}, and the server of the database {using!r} has no "
                "such role. Create it (CREATE ROLE …), or correct the name."
            )


def access(using: str, triggers: Collection[str] = ()) -> Access:
    """The privileges that roles have, and those in the settings.

    Args:
        triggers: the names of functions behind triggers; no role needs a privilege on them.
    """
    parameters = {"home": own.home(using), "names": list(own.ALL), "triggers": list(triggers)}
    settings = conf.get()
    wanted, owner, can_grant = set(), "", True
    for kind, name, target, owned_by, may_grant in Store(using).rows("objects", parameters):
        can_grant = can_grant and may_grant
        owner = owned_by if name == own.TABLES[0] else owner
        for roles, needed in (
            (settings.WRITER_ROLES, WRITER),
            (settings.LISTENER_ROLES, LISTENER),
        ):
            wanted |= {
                Privilege(kind, target, role, privilege)
                for role in roles
                for privilege in needed.get(name, ())
                # An owner has every privilege.
                if quoting.identifier(role) != owned_by and role != owned_by
            }
    found = {
        Privilege(kind, target, role, privilege)
        for kind, _, target, _, role, privilege in Store(using).rows("privileges", parameters)
    }
    return Access(owner, can_grant, frozenset(wanted), frozenset(found))


def settle(using: str) -> list[str]:
    """Grant the privileges in the settings, and revoke all others.

    Returns:
        the statements that were executed.

    Raises:
        CommandError: privileges must change, and the session's role may not change them.
    """
    found = access(using)
    statements = [*_revoking(found), *_granting(found)]
    if statements and not found.can_grant:
        raise CommandError(
            f"The privileges on bulksafe's tables in the database {using!r} must be changed, and "
            f"only their owner, {found.owner}, may do that. Run migrate as that role, or let it "
            f"execute: {'; '.join(statements)}"
        )
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    return statements


def _revoking(found: Access) -> Iterator[str]:
    """Revoke all privileges of a role on an object if any is unwanted."""
    for kind, target, role in sorted({(p.kind, p.target, p.role) for p in found.too_many}):
        yield f"REVOKE ALL ON {kind} {target} FROM {_role(role)} CASCADE"


def _granting(found: Access) -> Iterator[str]:
    revoked = {(p.target, p.role) for p in found.too_many}
    needed: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for privilege in sorted(found.wanted):
        is_there = privilege in found.found and (privilege.target, privilege.role) not in revoked
        if not is_there:
            needed[privilege.kind, privilege.target, privilege.role].append(privilege.name)
    for (kind, target, role), names in needed.items():
        yield f"GRANT {', '.join(names)} ON {kind} {target} TO {_role(role)}"


def _role(name: str) -> str:
    return PUBLIC if name == PUBLIC else quoting.identifier(name)
