"""Random sequences of bulk writes, savepoints and rollbacks: the mirrors never differ.

One side has Django's own signals and is written row by row; the other has critical receivers and
is written in bulk. After every step both hold the same rows, the receivers have been called for the
same rows in the same states and beside the same stored rows, and what the one refuses the other
refuses. The order of calls of different rows is not compared: in bulk the receivers of all rows
come before the write, and then after it.

What is different on purpose, and is no part of this:

* A critical receiver is not called for a change that it made itself, and ``approve`` guards itself.
* A refused write leaves nothing behind, also where a plain ``save()`` would leave the row, or the
  rows before it: a savepoint is put around the plain side.
* ``update()`` stores whatever receivers assign, as ``save()`` without ``update_fields`` does, and
  says which fields were given all the same: they are compared where both sides are given them.
* Django sends nothing for rows that ``SET_NULL`` changes; to critical receivers they are updated.
* Below a ``WITH`` rows are not stored one by one: a receiver that looks at other rows sees them as
  they were before the write, or after it. So such a write has one row, while such a receiver is
  connected; and an ``INSERT … ON CONFLICT`` while one is that may look after the write.
* Where a write is made again, row by row, receivers have been called for some rows twice: the calls
  of such a write are not compared, and what is stored is.

Receivers that read and write other rows, of their own table and of each other's, are connected a
few at a time: with all of them, no write would be left in bulk.

``BULKSAFE_MIRROR_EXAMPLES=1000`` tries more sequences.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bulksafe import syncdb, testing
from bulksafe.declarations import receivers as declared
from bulksafe.patches.signals import connect_critical
from bulksafe.writer import conflicts, performing, second_update
from bulksafe.writer.observing import Observer
from tests.acceptance import per_row as equivalent
from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.acceptance.mirror_writes import (
    BY_DJANGO,
    CREATING,
    CREATING_AGAIN,
    DEFAULTS,
    DELETING,
    ENTRIES,
    LINKING,
    LINKS,
    OF_FIELDS,
    SHELVES,
    SHELVING,
    UPDATING,
    UPSERTED,
    Row,
    assign,
    critical,
    entries,
    execute,
    field_names,
    made,
    plain,
)
from tests.apps.mirrors import between
from tests.apps.mirrors.models import Note
from tests.apps.mirrors.receivers import FIELDS, RefusedError, Side, declare
from tests.integration import inline

pytestmark = pytest.mark.django_db(transaction=True)

DEEPEST = 3

SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=int(os.environ.get("BULKSAFE_MIRROR_EXAMPLES", "20")),
    stateful_step_count=20,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

#: The receivers of each side by name: signal, sender, function.
FUNCTIONS = {
    side.name: {name: found for name, *found in declare(side)} for side in (plain, critical)
}


#: Receivers that read and write other rows.
BETWEEN = [function.__name__ for *_, function in between.between_rows(Side("Plain"))]
NAMES = [name for name in FUNCTIONS["Plain"] if name not in BETWEEN]


def named(model: Any, *signals: Any) -> list[str]:
    """The names of the receivers of some signals of a model."""
    found = FUNCTIONS["Plain"].items()
    return [name for name, (signal, sender, _) in found if sender is model and signal in signals]


SAVE_NAMES = named(plain.Entry, pre_save, post_save)
DELETION_NAMES = named(plain.Entry, pre_delete, post_delete)
SHELF_NAMES = named(plain.Shelf, pre_save, post_save, post_delete)
LINK_NAMES = named(plain.Link, m2m_changed)

#: The receivers that look at other rows when an entry is written.
LOOKING_AT_SAVES = {"find_slug", "find_position", *BETWEEN}
LOOKING_AT_DELETIONS = {"keep_one", *BETWEEN}

SHELF_NUMBERS = (1, 2, 3)
TAG_NUMBERS = (1, 2, 3, 4)


# The tables.


def tables(side: Side) -> list[str]:
    models = (side.Link, side.Entry, side.Tag, side.Shelf, side.Stock)
    return [model._meta.db_table for model in models]


def empty() -> None:
    names = [*tables(plain), *tables(critical), Note._meta.db_table]
    with transaction.atomic(durable=True):
        execute("SET LOCAL session_replication_role = replica")
        execute("; ".join(f"DELETE FROM {name}" for name in names))


def fill() -> None:
    """Shelves and tags, and something to change and to delete from the first step on."""
    for side in (plain, critical):
        connect(side, set())
    empty()
    with transaction.atomic(durable=True):
        execute("SET LOCAL session_replication_role = replica")
        for side in (plain, critical):
            side.Shelf.objects.bulk_create(
                side.Shelf(number=n, entries=n == 1) for n in SHELF_NUMBERS
            )
            side.Tag.objects.bulk_create(side.Tag(number=n) for n in TAG_NUMBERS)
            side.Entry.objects.bulk_create(
                [
                    side.Entry(number=1, name="a", slug="a", position=1, amount=1, shelf_id=1),
                    side.Entry(number=2, name="b", slug="b", position=2, amount=2, state="final"),
                    side.Entry(number=3, name="a", slug="a-2", position=3, amount=3, box_id=2),
                    side.Entry(number=4, name="c", slug="c", position=4, state="final"),
                ]
            )
            for number, tags in ((1, [1, 2]), (3, [2])):
                side.Entry.objects.get(number=number).tags.set(tags)
            execute(between.FILL.format(side=side.name.lower()))


def stored(side: Side) -> dict[str, Any]:
    """All that one side holds."""
    names = [one.attname for one in side.Link._meta.fields[1:]]
    owner, tag = names[0].replace("_id", "__number"), names[1]
    return {
        "entries": list(side.Entry.objects.order_by("number").values_list(*FIELDS)),
        "links": sorted(side.Link.objects.values_list(owner, tag)),
        "shelves": list(side.Shelf.objects.order_by("pk").values_list()),
        "stock": list(side.Stock.objects.order_by("pk").values_list()),
        "tags": list(side.Tag.objects.order_by("pk").values_list()),
        "notes": sorted(Note.objects.filter(side=side.name).values_list("text", flat=True)),
    }


# Receivers.


#: The receivers that are connected, by the name of their side.
_connected: dict[str, set[str]] = {}


def connect(side: Side, names: set[str]) -> None:
    """Let these be the receivers of a side that are connected, in their order."""
    if _connected.get(side.name) == names:
        return
    _connected[side.name] = set(names)
    for signal, sender, function in FUNCTIONS[side.name].values():
        signal.disconnect(function, sender=sender)
    for name, (signal, sender, function) in FUNCTIONS[side.name].items():
        if name not in names:
            continue
        if side is plain:
            signal.connect(function, sender=sender)
        for receiver in declared.receivers:
            if receiver.function is function:
                connect_critical(receiver)


@pytest.fixture(scope="module", autouse=True)
def critical_receivers(committed) -> Iterator[None]:  # noqa: F811
    with inline.only_these():
        for signal, sender, function in FUNCTIONS["Critical"].values():
            inline.critical(signal, sender, function, dispatch_uid=None)
        for script in (between.UNINSTALL, between.INSTALL):
            for side in (plain, critical):
                execute(script.format(side=side.name.lower()))
        # As after a migration: the catalogs have changed.
        syncdb.note_receivers(None, "default")
        _connected.clear()
        yield
        connect(plain, set())
    for side in (plain, critical):
        execute(between.UNINSTALL.format(side=side.name.lower()))
    for table, name in captures():
        execute(f'DROP TRIGGER "{name}" ON {table}')
    empty()
    syncdb.note_receivers(None, "default")


def captures() -> list[tuple[str, str]]:
    """The triggers on the tables of the critical side: table and name."""
    return execute(
        "SELECT c.relname, t.tgname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid "
        "WHERE c.relname = ANY (%s) AND NOT t.tgisinternal ORDER BY 1, 2",
        [tables(critical)],
    )


# The writes.

ROWS = st.lists(
    st.fixed_dictionaries(
        {"amount": st.integers(0, 5)},
        optional={
            "name": st.sampled_from(["a", "b", " A "]),
            "state": st.sampled_from(["draft", "new", "final"]),
            "shelf_id": st.sampled_from([None, *SHELF_NUMBERS]),
            "box_id": st.sampled_from([None, *SHELF_NUMBERS]),
            "data": st.just({"from": "row"}),
        },
    ),
    min_size=1,
    max_size=4,
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "amount": st.integers(0, 5),
        "name": st.sampled_from(["a", "c", " B "]),
        "state": st.sampled_from(["draft", "new", "final"]),
        "shelf_id": st.sampled_from([None, *SHELF_NUMBERS]),
        "data": st.just({"from": "values"}),
    },
).filter(bool)
PICKS = st.lists(st.integers(0, 20), min_size=1, max_size=4)
SOME_TAGS = st.lists(st.sampled_from(TAG_NUMBERS), min_size=1, max_size=3, unique=True)


@dataclass(frozen=True)
class Trouble:
    """What comes between a write and its receivers.

    Attributes:
        refusal: a receiver, and whether it refuses rows with an odd amount, or with an even one.
        muted: receivers that are not called.
        is_caught_inside: whether a refusal is caught inside the transaction, which then goes on.
    """

    refusal: tuple[str, bool] | None = None
    muted: tuple[str, ...] = ()
    is_caught_inside: bool = False


NO_TROUBLE = Trouble()


def troubles(names: list[str]) -> st.SearchStrategy[Trouble]:
    """None, or one with these receivers."""
    name = st.sampled_from(names)
    return st.one_of(
        st.just(NO_TROUBLE),
        st.builds(Trouble, refusal=st.tuples(name, st.booleans()), is_caught_inside=st.booleans()),
        st.builds(Trouble, muted=st.lists(name, min_size=1, max_size=2).map(tuple)),
    )


def hows(ways: dict[str, Any]) -> st.SearchStrategy[str]:
    return st.sampled_from(list(ways))


def has_entries(machine: Mirrors) -> bool:
    return plain.Entry.objects.exists()


class Mirrors(RuleBasedStateMachine):
    """Each rule does the same to both sides, and compares what became of it."""

    #: How often which kind of step was done and refused, over all examples.
    seen: Counter[tuple[str, bool]] = Counter()
    #: Receivers that are not connected on the critical side, to see that it is noticed.
    deaf: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.open: list[transaction.Atomic] = []
        self.last_number = 100
        self.connected = set(NAMES)

    @initialize(
        without=st.sets(st.sampled_from(NAMES)),
        between=st.sets(st.sampled_from(BETWEEN), max_size=3),
    )
    def start(self, without: set[str], between: set[str]) -> None:
        fill()
        self.connected = (set(NAMES) - without) | between
        self.connect()

    def connect(self, muted: tuple[str, ...] = ()) -> None:
        connect(plain, self.connected - set(muted))
        connect(critical, self.connected - self.deaf)

    # Entries.

    @rule(how=hows(CREATING), rows=ROWS, trouble=troubles(SAVE_NAMES))
    def create(self, how, rows, trouble):
        given = self.numbered(self.fewer(how, rows, LOOKING_AT_SAVES))

        expected = [made(plain, row) for row in given]
        held: list[Any] = []

        def in_bulk() -> None:
            held.extend(CREATING[how](given) or ())

        self.write(f"create by {how}", in_bulk, lambda: equivalent.bulk_create(expected), trouble)
        if held:
            # As after a save(), even if a receiver has written to the row again.
            assert list(map(critical.row, held)) == list(map(plain.row, expected))

    @precondition(has_entries)
    @rule(how=hows(CREATING_AGAIN), rows=ROWS, picks=PICKS, trouble=troubles(SAVE_NAMES))
    def create_again(self, how, rows, picks, trouble):
        """Some rows have numbers that are taken."""
        becomes, in_bulk = CREATING_AGAIN[how]
        given = self.numbered(self.fewer(how, rows, LOOKING_AT_SAVES))
        for row, number in zip(given[: len(picks) // 2 + 1], self.picked(picks), strict=False):
            row["number"] = number

        def per_row() -> None:
            for row in given:
                there = plain.Entry.objects.filter(number=row["number"]).first()
                if there is None or becomes == "refused":
                    made(plain, row).save()
                elif how == "ignore_conflicts":
                    # Receivers before the write run, and their effects are rolled back.
                    equivalent.insert_or_ignore([made(plain, row)])
                elif becomes == "updated":
                    new = {name: (DEFAULTS | row)[name] for name in UPSERTED}
                    if how == "update_conflicts":
                        assign(there, new)
                        equivalent.save_fields(there, UPSERTED)
                    else:
                        equivalent.update_changed(there, new)

        if becomes == "refused":
            # The database refuses it; nothing before it does.
            trouble = NO_TROUBLE
        self.write(f"create again by {how}", lambda: in_bulk(given), per_row, trouble)

    @precondition(has_entries)
    @rule(how=hows(UPDATING), picks=PICKS, values=VALUES, trouble=troubles(SAVE_NAMES))
    def update(self, how, picks, values, trouble):
        numbers = self.fewer(how, self.picked(picks), LOOKING_AT_SAVES)

        self.write(
            f"update by {how}",
            lambda: UPDATING[how](numbers, values),
            lambda: update_per_row(how, numbers, values),
            trouble,
            has_update_fields=how in (*OF_FIELDS, "save"),
        )

    @precondition(has_entries)
    @rule(how=hows(DELETING), picks=PICKS, trouble=troubles(DELETION_NAMES))
    def delete(self, how, picks, trouble):
        numbers = self.fewer(how, self.picked(picks), LOOKING_AT_DELETIONS)
        if how not in BY_DJANGO:
            linked = critical.Link.objects.filter(criticalentry__number__in=numbers)
            taken = set(linked.values_list("criticalentry__number", flat=True))
            numbers = [number for number in numbers if number not in taken]

        if numbers:
            self.write(
                f"delete by {how}",
                lambda: DELETING[how](numbers),
                lambda: delete_per_row(how, numbers),
                trouble,
            )

    def numbered(self, rows: list[Row]) -> list[Row]:
        numbers = range(self.last_number + 1, self.last_number + 1 + len(rows))
        self.last_number = numbers[-1]
        return [{"number": number} | row for number, row in zip(numbers, rows, strict=True)]

    def picked(self, picks: list[int]) -> list[int]:
        """The numbers of some entries."""
        listed = list(plain.Entry.objects.order_by("number").values_list("number", flat=True))
        indexes = {pick % len(listed) for pick in picks} if listed else ()
        return [listed[index] for index in sorted(indexes)]

    def fewer(self, how: str, listed: list[Any], looking: set[str]) -> list[Any]:
        """One row only, where rows are not stored one by one and a receiver looks at others."""
        if "… DO" in how:
            # They are, for receivers before the write alone.
            looking = set(BETWEEN)
        elif "CTE" not in how:
            return listed
        return listed[:1] if self.connected & looking else listed

    # Links.

    @precondition(has_entries)
    @rule(how=hows(LINKING), picks=PICKS, tags=SOME_TAGS, trouble=troubles(LINK_NAMES))
    def link(self, how, picks, tags, trouble):
        numbers = self.picked(picks)
        method, in_bulk = LINKING[how]

        def per_row() -> None:
            for entry in entries(plain, numbers):
                there = set(entry.tags.values_list("pk", flat=True))
                wanted: list[Any] = {"clear": [], "set": [tags]}.get(how, tags)
                if how != method:
                    wanted = [tag for tag in tags if (tag in there) == (method == "remove")]
                # A manager also signals a no-op; without a manager no signal is sent.
                if wanted or how == method:
                    getattr(entry.tags, method)(*wanted)

        def in_reverse(side: Side) -> None:
            tag, found = side.Tag.objects.get(pk=tags[0]), entries(side, numbers)
            manager = getattr(tag, f"{side.name.lower()}entry_set")
            getattr(manager, method)(*{"clear": [], "set": [found]}.get(method, found))

        if in_bulk is None:
            self.write(f"link by {how}", lambda: in_reverse(critical), lambda: in_reverse(plain))
        else:
            self.write(f"link by {how}", lambda: in_bulk(numbers, tags), per_row, trouble)

    # Shelves.

    @rule(
        how=hows(SHELVING),
        numbers=st.lists(st.integers(1, 5), min_size=1, max_size=4, unique=True).map(sorted),
        amount=st.integers(0, 9),
        trouble=troubles(SHELF_NAMES),
    )
    def change_shelves(self, how, numbers, amount, trouble):
        updates, creates, in_bulk = SHELVING[how]
        numbers = self.fewer(how, numbers, set(BETWEEN))

        def per_row() -> None:
            for number in numbers:
                shelf = plain.Shelf.objects.filter(pk=number).first()
                if shelf is None and creates:
                    plain.Shelf.objects.create(number=number, amount=amount)
                elif how == "ignore_conflicts":
                    equivalent.insert_or_ignore([plain.Shelf(number=number, amount=amount)])
                elif shelf is not None and updates:
                    shelf.amount = amount
                    shelf.save(update_fields=["amount"] if how == "bulk_update" else None)

        self.write(f"shelves by {how}", lambda: in_bulk(numbers, amount), per_row, trouble)

    @rule(picks=PICKS, trouble=troubles(DELETION_NAMES + SAVE_NAMES))
    def delete_shelf(self, picks, trouble):
        """Cascades to its entries, and sets the box of entries with its number to NULL."""
        shelf = SHELF_NUMBERS[picks[0] % len(SHELF_NUMBERS)]
        if len(picks) < 4 or plain.Entry.objects.filter(shelf=shelf, box=shelf).exists():
            return
        # Django sends nothing for what SET_NULL changes between the two signals of a deletion.
        if self.connected & set(BETWEEN) and plain.Entry.objects.filter(box=shelf).exists():
            return

        def in_bulk() -> None:
            critical.Shelf.objects.filter(pk=shelf).delete()
            critical.Shelf.objects.create(number=shelf)

        def per_row() -> None:
            boxed = list(plain.Entry.objects.filter(box=shelf).values_list("number", flat=True))
            for entry in entries(plain, sorted(boxed)):
                entry.box = None
                entry.save()
            plain.Shelf.objects.get(pk=shelf).delete()
            plain.Shelf.objects.create(number=shelf)

        self.write("delete a shelf", in_bulk, per_row, trouble)

    # Writing, and comparing.

    def write(
        self,
        title: str,
        in_bulk: Callable[[], None],
        per_row: Callable[[], None],
        trouble: Trouble = NO_TROUBLE,
        *,
        has_update_fields: bool = False,
    ) -> None:
        for side in (critical, plain):
            side.refusal = trouble.refusal
            side.calls.clear()
        self.connect(trouble.muted)
        muted = testing.muted(*(FUNCTIONS["Critical"][name][-1] for name in trouble.muted))
        with muted, noting_repetitions() as repetitions:
            refused = refuses(in_bulk, trouble.is_caught_inside)
        plain_refused = refuses(per_row, trouble.is_caught_inside)
        self.connect()
        self.seen[title.partition(" by ")[0], bool(refused)] += 1
        assert refused == plain_refused
        if not refused and not repetitions:
            called, expected = (calls(side, has_update_fields) for side in (critical, plain))
            assert sorted(called - expected) == sorted(expected - called)

    # Receivers.

    @rule(name=st.sampled_from(NAMES + BETWEEN))
    def disconnect_or_reconnect(self, name):
        self.connected ^= {name}
        self.connect()

    # Transactions.

    @rule(is_begin=st.booleans())
    def begin_or_release(self, is_begin: bool) -> None:
        """Open a transaction or set a savepoint; or release it, or commit."""
        if self.open and (len(self.open) == DEEPEST or not is_begin):
            self.open.pop().__exit__(None, None, None)
        elif is_begin:
            self.open.append(transaction.atomic())
            self.open[-1].__enter__()

    @precondition(lambda self: self.open)
    @rule()
    def rollback(self) -> None:
        transaction.set_rollback(True)
        self.open.pop().__exit__(None, None, None)

    def teardown(self) -> None:
        while self.open:
            self.rollback()

    # What holds after every step.

    @invariant()
    def mirrors_are_equal(self) -> None:
        found, expected = stored(critical), stored(plain)
        for name in found:
            assert found[name] == expected[name], name

    @invariant()
    def nothing_waits(self) -> None:
        """Every change has been delivered, and tickets end with their transaction."""
        assert execute("SELECT count(*) FROM bulksafe_buffer") == [(0,)]
        ((tickets,),) = execute("SELECT count(*) FROM bulksafe_ticket")
        assert tickets <= bool(self.open)


def update_per_row(how: str, numbers: list[int], values: Row) -> None:
    queryset = plain.Entry.objects.filter(number__in=numbers)
    if how == "update, F":
        equivalent.update(queryset, amount=F("amount") + 1)
    elif how.startswith("update"):
        equivalent.update(queryset, **values)
    elif how == "UPDATE, executemany":
        for number in numbers:
            equivalent.raw_update(plain.Entry.objects.filter(number=number), **values)
    elif how.startswith("UPDATE"):
        equivalent.raw_update(queryset, **values)
    else:
        listed = list(queryset.order_by("pk"))
        if how == "bulk_update":
            for entry in listed:
                assign(entry, values)
            equivalent.bulk_update(listed, field_names(values))
            return
        for entry in listed:
            assign(entry, values)
            entry.save(update_fields=field_names(values) if how in OF_FIELDS else None)


def delete_per_row(how: str, numbers: list[int]) -> None:
    queryset = plain.Entry.objects.filter(number__in=numbers)
    if how == "delete":
        queryset.delete()
    elif how == "delete each":
        for entry in queryset.order_by("pk"):
            entry.delete()
    elif how == "DELETE, executemany":
        for number in numbers:
            equivalent.raw_delete(plain.Entry.objects.filter(number=number))
    else:
        equivalent.raw_delete(queryset)


@contextmanager
def noting_repetitions() -> Iterator[list[logging.LogRecord]]:
    """The log records of writes that are repeated row by row."""
    found: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "row by row" in record.getMessage():
                found.append(record)

    handler, logger = Handler(), logging.getLogger("bulksafe")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def refuses(write: Callable[[], None], is_caught_inside: bool) -> str:
    """The class of the error of a write, after which a transaction goes on; empty if it passes."""
    found = ""
    try:
        with transaction.atomic():
            if is_caught_inside:
                try:
                    with transaction.atomic():
                        write()
                except RefusedError as error:
                    found = type(error).__name__
                Note.objects.create(side="both", text="went on")
            else:
                write()
    except (RefusedError, IntegrityError) as error:
        found = type(error).__name__
    return found


#: Where a call has update_fields.
_UPDATE_FIELDS = {"compare": 2, "record_save": 3}


def calls(side: Side, has_update_fields: bool) -> Counter[str]:
    found = Counter()
    for call in side.calls:
        place = None if has_update_fields else _UPDATE_FIELDS.get(call[0])
        found[repr([value for n, value in enumerate(call) if n != place])] += 1
    return found


def test_the_mirrors_never_differ():
    Mirrors.seen.clear()
    run_state_machine_as_test(Mirrors, settings=SETTINGS)

    # Which examples are drawn depends on the versions of hypothesis and Python.
    taken = {kind for (kind, is_refused), _ in Mirrors.seen.items() if not is_refused}
    assert taken >= {"create", "create again", "update", "delete", "link", "shelves"}
    assert sum(n for (_, is_refused), n in Mirrors.seen.items() if is_refused) >= 5, Mirrors.seen


# Without these the machine might be comparing nothing.

#: Steps until it has to be noticed that something is wrong.
UNTIL_NOTICED = settings(SETTINGS, phases=[Phase.generate], max_examples=300)


def is_noticed() -> bool:
    try:
        run_state_machine_as_test(Mirrors, settings=UNTIL_NOTICED)
    except (AssertionError, IntegrityError):
        return True
    return False


@pytest.mark.parametrize(
    "name",
    ["count_versions", "log_save", "count_off_shelf", "count_tags", "cap_shelf"],
)
def test_the_machine_notices_a_receiver_that_is_not_called(name, monkeypatch):
    monkeypatch.setattr(Mirrors, "deaf", frozenset({name}))
    assert is_noticed()


@pytest.mark.parametrize(
    ("table", "operation"),
    [
        *((ENTRIES, operation) for operation in ("INSERT", "UPDATE", "DELETE")),
        (LINKS, "DELETE"),
        (SHELVES, "UPDATE"),
    ],
)
def test_the_machine_notices_a_capture_that_is_off(table, operation):
    names = execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal "
        "AND pg_get_triggerdef(oid) LIKE %s",
        [table, f"% AFTER {operation} ON %"],
    )
    assert names
    for (name,) in names:
        execute(f'ALTER TABLE {table} DISABLE TRIGGER "{name}"')
    try:
        assert is_noticed()
    finally:
        for (name,) in names:
            execute(f'ALTER TABLE {table} ENABLE TRIGGER "{name}"')


def _nothing(*args: Any, **kwargs: Any) -> Any:
    """In the place of what is left out."""
    return None


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (second_update, "store"),
        (performing, "needs_turns"),
        (Observer, "look"),
    ],
    ids=["what receivers assign", "writes that are collected", "rows one by one"],
)
def test_the_machine_notices_omitted_changes(owner, name, monkeypatch):
    monkeypatch.setattr(owner, name, _nothing)
    # What receivers touch may be known from an earlier test.
    monkeypatch.setattr(conflicts, "_remembered", WeakKeyDictionary())
    assert is_noticed()
