"""Findings of ``manage.py bulksafe doctor`` about bulksafe's own objects and privileges."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from bulksafe import conf, inspection
from bulksafe.declarations import declared
from bulksafe.dispatch.sources import by_oid
from bulksafe.outbox import access, own, shape
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulksafe.compiler import Trigger


def summary(using: str) -> Iterator[str]:
    """The roles that may use bulksafe's tables, one line each."""
    found = access.access(using)
    settings = conf.get()
    yield f"{found.owner} owns bulksafe's tables."
    for role in sorted({privilege.role for privilege in found.found}):
        uses = [
            use
            for use, roles in (
                ("writes through Django", settings.WRITER_ROLES),
                ("runs the listener", settings.LISTENER_ROLES),
            )
            if role in roles
        ]
        yield f"{role} {' and '.join(uses) or 'has privileges and is not in the settings'}."


def findings(using: str) -> Iterator[tuple[str, str]]:
    """Findings about our own objects, as (fact, fix) pairs."""
    home = own.home(using)
    if home is None:
        return
    installed = list(_installed(using))
    for fact in (*foreign(using), *shape.differences(using, home)):
        yield fact, shape.FIX
    functions = [function["function"] for trigger in installed for function in trigger.functions]
    yield from _privileges(access.access(using, functions))
    names = [name for trigger in installed for name in trigger.trigger_names]
    for trigger, table, function in Store(using).rows("path_dependent", {"triggers": names}):
        yield (
            f"The trigger {trigger} on {table} calls {function}, which looks up its names on the "
            "search_path of the role that writes: that role can change what it does.",
            f"ALTER FUNCTION {function} SET search_path = …, with the schemas that it needs.",
        )


def foreign(using: str) -> Iterator[str]:
    """Objects with our names that belong to an untrusted role or come first on the search_path."""
    home = own.home(using)
    if home is not None:
        tables = by_oid([item.model for item in declared()], using)
        yield from shape.strangers(using, home, list(tables))
        yield from shape.shadows(using, home)


def _installed(using: str) -> Iterator[Trigger]:
    for item in declared():
        if inspection.is_in(item, using):
            yield item.invariant.compile(item.model)


def _privileges(found: access.Access) -> Iterator[tuple[str, str]]:
    for role, names in _by_role(found.too_many):
        yield (
            f"{role} has privileges that the settings do not give it: {names}.",
            'Run migrate, which revokes them, or add the role to BULKSAFE["WRITER_ROLES"] or '
            'BULKSAFE["LISTENER_ROLES"].',
        )
    for role, names in _by_role(found.missing):
        yield f"{role} lacks privileges that the settings give it: {names}.", "Run migrate."


def _by_role(privileges: Sequence[access.Privilege]) -> list[tuple[str, str]]:
    listed: dict[str, list[str]] = defaultdict(list)
    for privilege in privileges:
        listed[privilege.role].append(f"{privilege.name} on {privilege.target}")
    return [(role, ", ".join(names)) for role, names in sorted(listed.items())]
