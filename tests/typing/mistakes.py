"""Mistakes that a type checker must refuse: each line that ends with a comment, with this code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import F, Q
from django.db.models.signals import post_save
from django.dispatch import Signal

import bulksafe


def note(sender: type[User], instance: User, **kwargs: Any) -> None: ...


bulksafe.critical(post_save, sender=User, run="after_comit")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, run="in_database")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, on_dead="ignore")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, otherwise="later")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, qeue="mail")(note)  # E: call-arg
bulksafe.critical(post_save, sender=User, queue=None)(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, batch="yes")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, timeout="30")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, max_attempts=2.5)(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, backoff="1")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, after=[3])(note)  # E: list-item
bulksafe.critical(post_save, sender=User, dispatch_uid=["a"])(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, when="paid")(note)  # E: arg-type
bulksafe.critical(post_save, sender=User, when=F("is_active"))(note)  # E: arg-type
bulksafe.critical(post_save, sender=User())(note)  # E: arg-type
bulksafe.critical(post_save, sender=int)(note)  # E: arg-type
bulksafe.critical(post_save, User)(note)  # E: call-arg
bulksafe.critical("post_save", sender=User)(note)  # E: arg-type
bulksafe.critical(sender=User)(note)  # E: call-arg
bulksafe.critical(note)  # E: arg-type
bulksafe.critical(post_save, sender=User)("note")  # E: type-var
bulksafe.models_of(User)  # E: arg-type
bulksafe.models_of(["shop"])  # E: arg-type
bulksafe.Emit(Signal(), when=Q(new__name="a"), name="done", on_dead="ignore")  # E: arg-type
bulksafe.Emit("done", when=Q(new__name="a"), name="done")  # E: arg-type
bulksafe.Emit(Signal(), when=Q(new__name="a"), nme="done")  # E: call-arg


def many(events: Sequence[bulksafe.Change[User]]) -> None:
    for change in events:
        group: Group = change.instance  # E: assignment
        print(change.old.username)  # E: union-attr
        print(change.instance.no_such_field)  # E: attr-defined
        change.created = True  # E: misc
        print(change.event.no_such_column)  # E: attr-defined
        print(group)


def numbers(events: Sequence[bulksafe.Change[int]]) -> None: ...  # E: type-var


@bulksafe.critical  # E: arg-type
def bare(sender: type[User], **kwargs: Any) -> None: ...


# A receiver keeps its own type.
bulksafe.critical(post_save, sender=User)(note)(User, instance=Group())  # E: arg-type
