"""Uses of the public API that a type checker must accept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, assert_type

from django.contrib.auth.models import Group, User
from django.db.models import Exists, Model, Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.dispatch import Signal

import bulksafe

order_fulfilled = Signal()


@bulksafe.critical(post_save, sender=User)
def note(sender: type[User], instance: User, created: bool, **kwargs: Any) -> None:
    assert_type(instance, User)


@bulksafe.critical(
    [post_save, post_delete],
    sender=["auth.User", Group, bulksafe.models_of("auth", "admin")],
    run="after_commit",
    when=Q(new__name="a") & ~Q(old__name="a"),
    after=[note, "shop.keep_history"],
    weak=False,
    dispatch_uid=("shop", 1),
    queue="mail",
    atomic=False,
    max_attempts=3,
    on_dead="skip",
    timeout=1.5,
    backoff=[1, 60, 3600],
    coalesce=True,
    app_label="shop",
)
def notify(
    sender: type[Model],
    instance: Model,
    *,
    old: Model | None,
    changed: frozenset[str],
    event_id: str,
    context: Mapping[str, Any],
    **kwargs: Any,
) -> None: ...


@bulksafe.critical(pre_save, sender={User, Group}, otherwise="refuse", row_by_row=True)
async def later(sender: type[User], instance: User, **kwargs: object) -> None: ...


@bulksafe.critical(post_save, sender="auth.User", run="after_commit", batch=True)
def many(
    sender: type[User],
    instances: Sequence[User],
    events: Sequence[bulksafe.Change[User]],
    **kwargs: Any,
) -> None:
    for change in events:
        assert_type(change.instance, User)
        assert_type(change.old, User | None)
        assert_type(change.changed, frozenset[str])
        assert_type(change.created, bool)
        assert_type(change.event, bulksafe.Event)
        assert_type(change.event_id, str)


def of_any_model(events: Sequence[bulksafe.Change]) -> Iterator[Model]:
    return (change.instance for change in events)


class Audit:
    def note(self, sender: type[User], **kwargs: Any) -> None: ...

    def __call__(self, sender: type[User], **kwargs: Any) -> None: ...


bulksafe.critical(post_save, sender=User)(Audit().note)
bulksafe.critical(post_save, sender=User, when=Exists(User.objects.all()))(Audit())
bulksafe.critical(post_save, sender=User, backoff=lambda attempts: 2.0**attempts)(partial(note))
bulksafe.critical(m2m_changed, sender=User.groups.through)(lambda **kwargs: None)
bulksafe.Emit(order_fulfilled, when=Q(new__name="a"), name="fulfilled", on_dead="skip")

# A receiver keeps its own type.
note(User, User(), created=True)
