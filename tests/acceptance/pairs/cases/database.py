"""Changes that the database makes: cascades, and the project's own rules and triggers."""

import pgtrigger
from django.db import connection
from django.db.models.signals import post_delete, post_save

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, case
from tests.apps.columns.trying import install


def execute(*statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _foreign_key(column, target, action):
    """Each constraint has a name that ``sides.empty()`` drops."""

    def prepare(m):
        execute(
            f"ALTER TABLE {m.label}_part ADD CONSTRAINT pairs_{m.label}_{column} "
            f"FOREIGN KEY ({column}) REFERENCES {m.label}_{target} {action} "
            "DEFERRABLE INITIALLY DEFERRED"
        )

    return prepare


def _noting(m, *signals, model):
    names = {post_save: "post", post_delete: "left"}

    def note(sender, instance, signal, **kwargs):
        m.calls.append((names[signal], instance.name))

    return [(signal, model, note) for signal in signals]


def _part_of_each(m):
    def add(sender, instance, created, **kwargs):
        if created:
            m.Part.objects.bulk_create([m.Part(name=instance.name, item=instance)])

    return (post_save, m.Item, add)


@case(
    "ON DELETE CASCADE",
    letter="l",
    prepare=_foreign_key("item_id", "item", "ON DELETE CASCADE"),
    kinds=(DELETE,),
    expected=lambda path, size: [("left", f"row {n}") for n in range(size)],
)
def cascade(m):
    return [_part_of_each(m), *_noting(m, post_delete, model=m.Part)]


@case(
    "ON DELETE SET NULL",
    letter="l",
    prepare=_foreign_key("item_id", "item", "ON DELETE SET NULL"),
    kinds=(DELETE,),
    expected=lambda path, size: [("post", f"row {n}") for n in range(size)],
)
def set_null(m):
    def note(sender, instance, created, **kwargs):
        if not created:
            m.calls.append(("post", instance.name))

    return [_part_of_each(m), (post_save, m.Part, note)]


def tree(m):
    m.Part.objects.bulk_create([m.Part(pk=1_000, name="root")])


@case(
    "ON DELETE CASCADE to the same table",
    letter="l",
    model="Part",
    prepare=_foreign_key("parent_id", "part", "ON DELETE CASCADE"),
    setup=tree,
    row=lambda m, n: {"name": f"row {n}", "parent_id": 1_000},
    only=("DELETE", "_raw_delete()"),
    expected=lambda path, size: [("left", n) for n in ("root", *(f"row {i}" for i in range(size)))],
)
def cascade_to_itself(m):
    return _noting(m, post_delete, model=m.Part)


@case(
    "ON UPDATE CASCADE",
    letter="l",
    prepare=lambda m: execute(
        f"ALTER TABLE {m.label}_part ADD CONSTRAINT pairs_{m.label}_code FOREIGN KEY (code) "
        f"REFERENCES {m.label}_item (code) ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED"
    ),
    only=("save() again", "bulk_update()", "UPDATE, executemany()"),
    new=lambda n: {"code": 5_000 + n},
    expected=lambda path, size: [("post", f"row {n}") for n in range(size)],
)
def code_cascade(m):
    def add(sender, instance, created, **kwargs):
        if created:
            m.Part.objects.bulk_create([m.Part(name=instance.name, code=instance.code)])

    def note(sender, instance, created, **kwargs):
        if not created:
            m.calls.append(("post", instance.name))

    return [(post_save, m.Item, add), (post_save, m.Part, note)]


def _trigger(when, body):
    def prepare(m):
        execute(
            f"CREATE OR REPLACE FUNCTION {m.label}_own() RETURNS trigger LANGUAGE plpgsql "
            f"AS $$BEGIN {body.format(table=f'{m.label}_item')} END$$",
            f"CREATE TRIGGER own {when} ON {m.label}_item FOR EACH ROW "
            f"EXECUTE FUNCTION {m.label}_own()",
        )

    return prepare


@case(
    "a BEFORE trigger that changes the row",
    letter="m",
    prepare=_trigger("BEFORE INSERT OR UPDATE", "NEW.note := upper(NEW.name); RETURN NEW;"),
    kinds=(CREATE, UPDATE),
    values={"name": "renamed"},
    new=lambda n: {"name": f"renamed {n}"},
)
def changing(m):
    def note(sender, instance, **kwargs):
        m.calls.append(sender.objects.get(pk=instance.pk).note)

    return [(post_save, m.Item, note)]


def _odd(path, size):
    """Of the rows that are stored: the trigger leaves out each third."""
    return [("post", f"row {n}") for n in range(size) if n % 3]


@case(
    "a BEFORE trigger that leaves rows out",
    letter="m",
    prepare=_trigger(
        "BEFORE UPDATE", "IF OLD.position % 3 = 0 THEN RETURN NULL; END IF; RETURN NEW;"
    ),
    row=lambda m, n: {"name": f"row {n}", "position": n},
    only=("update()", "UPDATE", "UPDATE, executemany()"),
    expected=_odd,
)
def leaving_out(m):
    def note(sender, instance, created, **kwargs):
        if not created:
            m.calls.append(("post", instance.name))

    return [(post_save, m.Item, note)]


@case(
    "a BEFORE trigger that leaves out deletions",
    letter="m",
    prepare=_trigger(
        "BEFORE DELETE", "IF OLD.position % 3 = 0 THEN RETURN NULL; END IF; RETURN OLD;"
    ),
    row=lambda m, n: {"name": f"row {n}", "position": n},
    only=("DELETE", "_raw_delete()"),
    expected=lambda path, size: [("left", f"row {n}") for n in range(size) if n % 3],
)
def keeping(m):
    return _noting(m, post_delete, model=m.Item)


@case(
    "an AFTER trigger that writes the row again",
    letter="m",
    prepare=_trigger(
        "AFTER UPDATE",
        "IF pg_trigger_depth() = 1 THEN UPDATE {table} SET hits = hits + 1 WHERE id = NEW.id; "
        "END IF; RETURN NULL;",
    ),
    only=("update()", "UPDATE", "UPDATE, executemany()", "bulk_update()"),
    expected=lambda path, size: [("post", f"row {n}", 1) for n in range(size)],
)
def again(m):
    def note(sender, instance, created, **kwargs):
        if not created:
            stored = sender.objects.get(pk=instance.pk)
            m.calls.append(("post", instance.name, stored.hits))

    return [(post_save, m.Item, note)]


def _rule(m):
    table = f"{m.label}_item"
    execute(
        f"CREATE OR REPLACE RULE own AS ON DELETE TO {table} DO ALSO "
        f"INSERT INTO {m.label}_log (text) VALUES ('deleted ' || OLD.name)"
    )


@case(
    "a rule that writes a log",
    letter="m",
    prepare=_rule,
    only=("DELETE", "_raw_delete()"),
    expected=lambda path, size: [("left", f"row {n}") for n in range(size)],
)
def with_a_rule(m):
    return _noting(m, post_delete, model=m.Item)


@case(
    "pgtrigger.SoftDelete",
    letter="n",
    prepare=lambda m: install(m.Item, pgtrigger.SoftDelete(name="soft", field="is_active")),
    only=("DELETE", "_raw_delete()"),
    expected=lambda path, size: [("post", f"row {n}", False, False) for n in range(size)],
)
def soft_delete(m):
    def note(sender, instance, created, **kwargs):
        if not created:
            stored = sender.objects.get(pk=instance.pk)
            m.calls.append(("post", instance.name, instance.is_active, stored.is_active))

    def deleted(sender, instance, **kwargs):
        m.calls.append(("left", instance.name))

    return [(post_save, m.Item, note), (post_delete, m.Item, deleted)]
